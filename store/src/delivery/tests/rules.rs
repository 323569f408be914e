//! One test for each rule.

use super::fixture::{Delivery, Group, LEASE, attempts, seconds};
use crate::delivery::pop::{CURSORS_MAX, DROPPED_MAX, SCAN_MAX};
use crate::delivery::record::Renewal;
use crate::delivery::{DeliveryRecord, DeliveryState, NotHeld};
use gantry_proto::model::limits::{AUTO_RENEW_MAX, RECEIVE_BATCH_MAX};
use gantry_proto::model::{ClientHash, FilterExpression, GroupId, LogOffset, QueueId, QueueOffset, TopicId};

const ANNA: ClientHash = ClientHash(1);
const BERT: ClientHash = ClientHash(2);
const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

// Leases and attempts.

#[test]
fn a_delivered_message_is_hidden_until_its_lease_ends() {
    let mut group = Group::on(&[1]);
    let first = group.pop_one();
    assert_eq!(group.state.next_due_after(group.now), Some(group.now.after(LEASE)));
    group.wait(LEASE - seconds(1));
    assert_eq!((group.pop(8), group.check(first)), (vec![], Ok(())));
    group.wait(seconds(1));
    assert_eq!(group.check(first), Err(NotHeld::Expired));
    assert_eq!(attempts(&group.pop(8)), [(0, 2)]);
}

#[test]
fn an_acknowledged_message_never_comes_back() {
    let mut group = Group::on(&[3]);
    let deliveries = group.pop(3);
    group.ack(&deliveries[1..2]);
    group.wait(LEASE);
    assert_eq!(attempts(&group.pop(8)), [(0, 2), (2, 2)]);
    assert_eq!(group.check(deliveries[1]), Err(NotHeld::Finished));
}

#[test]
fn an_old_delivery_does_not_hold_what_was_delivered_again() {
    let mut group = Group::on(&[1]);
    let old = group.pop_one();
    group.wait(LEASE);
    let new = group.pop_one();
    assert_eq!((group.check(old), group.check(new)), (Err(NotHeld::Expired), Ok(())));
}

#[test]
fn a_delivery_that_the_log_lost_is_over_but_not_finished() {
    let mut group = Group::on(&[1]);
    let lost = group.pop_one();
    group.state = DeliveryState::default();
    assert_eq!(group.check(lost), Err(NotHeld::Expired));
}

#[test]
fn a_nack_counts_as_an_attempt() {
    let mut group = Group::on(&[1]);
    let first = group.pop_one();
    group.change(first, seconds(5), true);
    assert_eq!((group.check(first), group.pop(1)), (Ok(()), vec![]));
    group.wait(seconds(5));
    assert_eq!(attempts(&group.pop(1)), [(0, 2)]);
}

#[test]
fn a_suspended_delivery_is_not_an_attempt() {
    let mut group = Group::on(&[1]);
    for _ in 0..5 {
        let delivery = group.pop_one();
        assert_eq!(delivery.attempt, 1);
        group.change(delivery, seconds(0), false);
    }
    let delivery = group.pop_one();
    group.change(delivery, seconds(1), false);
    group.change(delivery, seconds(0), true);
    assert_eq!(group.pop_one().attempt, 2, "the last word counts");
}

#[test]
fn more_time_is_not_an_attempt() {
    let mut group = Group::on(&[1]);
    let delivery = group.pop_one();
    for _ in 0..5 {
        group.change(delivery, LEASE, true);
        group.wait(LEASE / 2);
        assert_eq!(group.check(delivery), Ok(()));
    }
    group.wait(LEASE);
    assert_eq!(group.pop_one().attempt, 2);
}

#[test]
fn a_clock_that_goes_back_does_not_end_a_lease_early() {
    let mut group = Group::on(&[1]);
    let start = group.now;
    let delivery = group.pop_one();
    group.wait(LEASE);
    assert_eq!(group.exhausted(), []);
    group.now = start;
    assert_eq!((group.check(delivery), group.pop(1)), (Ok(()), vec![]));
}

// Renewal.

#[test]
fn a_renewed_message_stays_hidden_and_its_delivery_valid() {
    let mut group = Group::on(&[2]);
    let delivery = group.pop_as(ANNA, 1)[0];
    for _ in 0..10 {
        group.wait(LEASE - seconds(1));
        group.renew(ANNA);
        assert_eq!(group.check(delivery), Ok(()));
    }
    group.wait(LEASE);
    assert_eq!(group.check(delivery), Err(NotHeld::Expired));
    assert_eq!(attempts(&group.pop(1)), [(0, 2)]);
}

#[test]
fn renewal_does_not_go_on_for_ever() {
    let mut group = Group::on(&[1]);
    let delivery = group.pop_as(ANNA, 1)[0];
    let end = group.now.after(AUTO_RENEW_MAX);
    while group.now < end {
        assert_eq!(group.check(delivery), Ok(()));
        group.wait(seconds(20));
        group.renew(ANNA);
    }
    assert_eq!(attempts(&group.pop_as(BERT, 1)), [(0, 2)]);
}

#[test]
fn a_delivery_that_may_not_have_arrived_is_not_renewed_until_it_is_known_to_have() {
    let mut group = Group::on(&[3]);
    let deliveries = group.pop_unconfirmed(ANNA, 2);
    let other = group.pop_as(ANNA, 1)[0];
    group.wait(LEASE / 2);
    let latest = group.now.after(AUTO_RENEW_MAX);
    // Of two deliveries one is known to have arrived.
    let known = |group: &Group, delivery: Delivery, owner| group.in_first_lease(owner, &[delivery]);
    assert_eq!(known(&group, deliveries[0], BERT), [], "it is not his");
    assert_eq!(known(&group, other, ANNA), [], "it is renewed from the beginning");
    let entries = known(&group, deliveries[0], ANNA);
    assert_eq!(entries, [(deliveries[0].queue, deliveries[0].offset)]);
    group.log(&DeliveryRecord::Arrived { owner: ANNA, latest, entries });
    assert_eq!(known(&group, deliveries[0], ANNA), [], "that is known now");
    group.renew(ANNA);
    group.wait(LEASE / 2);
    assert_eq!(group.check(deliveries[0]), Ok(()));
    assert_eq!(group.check(deliveries[1]), Err(NotHeld::Expired), "however long she lives");
    assert_eq!(known(&group, deliveries[1], ANNA), [], "too late");
    assert_eq!(attempts(&group.pop_as(BERT, 8)), [(1, 2)]);
    while group.now < latest {
        assert_eq!(group.check(deliveries[0]), Ok(()));
        group.renew(ANNA);
        group.wait(seconds(20));
    }
    assert_eq!(group.check(deliveries[0]), Err(NotHeld::Expired));
}

#[test]
fn what_is_said_of_an_arrival_changes_no_delivery_that_was_changed_since() {
    let mut group = Group::on(&[1]);
    let delivery = group.pop_unconfirmed(ANNA, 1)[0];
    let entries = group.in_first_lease(ANNA, &[delivery]);
    group.change(delivery, seconds(5), true);
    assert_eq!(group.in_first_lease(ANNA, &[delivery]), []);
    // Nor if both happen at one time.
    let latest = group.now.after(AUTO_RENEW_MAX);
    group.log(&DeliveryRecord::Arrived { owner: ANNA, latest, entries });
    group.renew(ANNA);
    group.wait(seconds(5));
    assert_eq!(attempts(&group.pop(8)), [(0, 2)]);
}

#[test]
fn a_goodbye_releases_also_what_may_not_have_arrived() {
    let mut group = Group::on(&[1]);
    group.pop_unconfirmed(ANNA, 1);
    let visible_at = group.now.after(seconds(1));
    let record = group.state.plan_release(ANNA, visible_at).unwrap();
    group.log(&record);
    group.wait(seconds(1));
    assert_eq!(attempts(&group.pop(8)), [(0, 2)]);
}

#[test]
fn a_late_renewal_brings_back_what_nobody_took() {
    let mut group = Group::on(&[2]);
    let deliveries = group.pop_as(ANNA, 2);
    group.wait(LEASE + seconds(5));
    assert_eq!(attempts(&group.pop_as(BERT, 1)), [(0, 2)]);
    group.renew(ANNA);
    assert_eq!(group.check(deliveries[0]), Err(NotHeld::Expired));
    assert_eq!(group.check(deliveries[1]), Ok(()));
    assert_eq!(group.pop(8), []);
    group.wait(LEASE - seconds(1));
    assert_eq!(group.state.next_due_after(group.now), Some(group.now.after(seconds(1))));
}

#[test]
fn a_new_delivery_extends_the_older_ones_of_its_owner() {
    let mut group = Group::on(&[2]);
    let first = group.pop_as(ANNA, 1)[0];
    group.wait(LEASE / 2);
    group.pop_as(ANNA, 1);
    group.wait(LEASE / 2);
    assert_eq!(group.check(first), Ok(()));
}

#[test]
fn a_delivery_with_a_changed_end_is_not_renewed_any_more() {
    let mut group = Group::on(&[2]);
    let deliveries = group.pop_as(ANNA, 2);
    group.change(deliveries[0], seconds(5), true);
    group.renew(ANNA);
    group.wait(seconds(5));
    assert_eq!(attempts(&group.pop(8)), [(0, 2)]);
    group.ack(&deliveries[1..]);
    assert_eq!(group.state.plan_renewal(&[ANNA], group.now.after(LEASE * 9)), None, "she holds nothing");
}

#[test]
fn only_owners_that_hold_something_and_need_it_are_renewed() {
    let mut group = Group::on(&[1]);
    group.pop_as(ANNA, 1);
    let until = group.now.after(LEASE);
    assert_eq!(group.state.plan_renewal(&[ANNA, BERT], until), None);
    let until = until.after(seconds(1));
    let expected = DeliveryRecord::OwnersRenewed { until, owners: vec![ANNA] };
    assert_eq!(group.state.plan_renewal(&[BERT, ANNA], until), Some(expected));
}

#[test]
fn an_owners_lease_ends_with_its_last_delivery() {
    let mut group = Group::on(&[2]);
    let first = group.pop_as(ANNA, 1);
    group.wait(LEASE / 2);
    group.renew(ANNA);
    group.ack(&first);
    group.now = group.now.after(LEASE / 4);
    let until = group.now.after(LEASE);
    group.pop_as(ANNA, 1);
    assert_eq!(group.state.schedule.owner_until(ANNA), Some(until));
}

#[test]
fn an_owner_that_gets_back_its_only_message_keeps_its_lease() {
    let mut group = Group::on(&[1]);
    let until = group.now.after(10 * LEASE);
    let renewal = Renewal { owner: ANNA, latest: group.now.after(seconds(5)) };
    let record = DeliveryRecord::Delivered {
        visible_at: until,
        renewal: Some(renewal),
        deliveries: vec![(QueueId(0), QueueOffset(0), 1)],
        dropped: vec![],
        cursors: vec![(QueueId(0), QueueOffset(1))],
    };
    group.log(&record);
    group.wait(seconds(5));
    assert_eq!(attempts(&group.pop_as(ANNA, 1)), [(0, 2)]);
    assert_eq!(group.state.schedule.owner_until(ANNA), Some(until));
}

#[test]
fn a_clock_that_goes_back_does_not_undo_a_renewal() {
    let mut group = Group::on(&[1]);
    let (start, delivery) = (group.now, group.pop_as(ANNA, 1)[0]);
    group.wait(LEASE);
    assert_eq!(group.exhausted(), []);
    group.now = start.after(LEASE - seconds(5));
    assert_eq!(group.exhausted(), []);
    group.renew(ANNA);
    group.wait(seconds(6));
    assert_eq!((group.check(delivery), group.pop(1)), (Ok(()), vec![]));
}

#[test]
fn what_a_client_that_is_gone_holds_becomes_visible_soon() {
    let mut group = Group::on(&[3]);
    let (anna, bert) = (group.pop_as(ANNA, 2), group.pop_as(BERT, 1));
    group.release(ANNA);
    group.renew(ANNA);
    assert_eq!(group.pop(8), []);
    group.wait(seconds(1));
    assert_eq!(group.check(anna[0]), Err(NotHeld::Expired));
    assert_eq!(group.check(bert[0]), Ok(()));
    assert_eq!(attempts(&group.pop(8)), [(0, 2), (1, 2)]);
}

#[test]
fn a_release_leaves_visible_what_was_visible() {
    let mut group = Group::on(&[1]);
    group.pop_as(ANNA, 1);
    group.wait(LEASE);
    group.release(ANNA);
    assert_eq!(attempts(&group.pop(1)), [(0, 2)]);
}

#[test]
fn a_release_does_not_touch_what_somebody_else_got_since_it_was_planned() {
    let mut group = Group::on(&[1]);
    group.pop_as(ANNA, 1);
    group.wait(LEASE);
    let release = group.state.plan_release(ANNA, group.now.after(seconds(1))).unwrap();
    let bert = group.pop_as(BERT, 1)[0];
    group.log(&release);
    group.wait(seconds(2));
    assert_eq!(group.check(bert), Ok(()));
}

// Exhausted messages.

/// Lets all attempts but the last end, then the last one.
fn exhaust(group: &mut Group) -> Vec<Delivery> {
    let mut last = Vec::new();
    for attempt in 1..=group.max_attempts {
        last = group.pop_all();
        assert!(last.iter().all(|delivery| delivery.attempt == attempt));
        group.wait(LEASE);
    }
    last
}

#[test]
fn a_message_is_delivered_as_often_as_allowed_and_then_exhausted() {
    let mut group = Group::on(&[2]);
    group.max_attempts = 4;
    let last = exhaust(&mut group);
    assert_eq!(attempts(&last), [(0, 4), (1, 4)]);
    assert_eq!(group.pop(8), []);
    assert_eq!(group.exhausted(), [(QueueId(0), QueueOffset(0)), (QueueId(0), QueueOffset(1))]);
    for delivery in &last {
        group.state.finish(delivery.queue, delivery.offset);
    }
    assert_eq!((group.exhausted(), group.state.inflight()), (vec![], 0));
    assert_eq!(group.check(last[0]), Err(NotHeld::Finished));
}

#[test]
fn the_last_delivery_is_not_exhausted_while_it_lasts_or_if_it_does_not_count() {
    let mut group = Group::on(&[1]);
    group.max_attempts = 1;
    let delivery = group.pop_one();
    assert_eq!(group.exhausted(), []);
    group.change(delivery, seconds(0), false);
    assert_eq!(group.exhausted(), []);
    assert_eq!(attempts(&group.pop(1)), [(0, 1)]);
}

#[test]
fn exhausted_messages_are_given_in_portions() {
    let mut group = Group::on(&[5]);
    group.max_attempts = 1;
    exhaust(&mut group);
    let mut seen = Vec::new();
    loop {
        let portion = group.state.exhausted(group.now, 1, 2, &group.topic);
        if portion.is_empty() {
            break;
        }
        assert!(portion.len() <= 2);
        for (queue, offset) in portion {
            group.state.finish(queue, offset);
            seen.push(offset.0);
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn exhausted_messages_wake_no_receive_but_are_due() {
    let mut group = Group::on(&[1]);
    group.max_attempts = 1;
    exhaust(&mut group);
    assert_eq!(group.pop(1), []);
    assert_eq!(group.state.next_due_after(group.now), None);
    assert!(group.state.any_due(group.now));
}

#[test]
fn many_exhausted_messages_do_not_hide_one_that_may_be_delivered() {
    let mut group = Group::on(&[5000, 0]);
    exhaust(&mut group);
    group.topic.queues[1].push(None);
    let delivery = group.pop_one();
    group.change(delivery, seconds(0), true);
    assert_eq!(attempts(&group.pop(1)), [(0, 2)]);
}

#[test]
fn many_messages_that_nobody_fetches_do_not_hide_an_exhausted_one() {
    let mut group = Group::on(&[5000, 0]);
    group.pop_all();
    group.wait(seconds(1));
    group.topic.queues[1].push(None);
    for _ in 0..3 {
        let delivery = group.pop_one();
        assert_eq!(delivery.queue, QueueId(1));
        group.change(delivery, seconds(0), true);
    }
    group.wait(LEASE);
    assert_eq!(group.exhausted(), [(QueueId(1), QueueOffset(0))]);
}

#[test]
fn a_changed_number_of_attempts_applies_to_what_has_ended() {
    let mut group = Group::on(&[1]);
    exhaust(&mut group);
    assert_eq!(group.exhausted().len(), 1);
    group.max_attempts = 4;
    assert_eq!(group.exhausted(), []);
    assert_eq!(attempts(&group.pop(1)), [(0, 4)]);
    group.wait(LEASE);
    group.max_attempts = 9;
    assert_eq!(group.exhausted(), []);
    group.max_attempts = 4;
    assert_eq!(group.exhausted().len(), 1);
}

#[test]
fn a_renewed_delivery_that_was_found_exhausted_can_come_back() {
    let mut group = Group::on(&[1]);
    group.max_attempts = 1;
    let delivery = group.pop_as(ANNA, 1)[0];
    group.wait(LEASE);
    assert_eq!(group.exhausted().len(), 1);
    group.renew(ANNA);
    assert_eq!((group.exhausted(), group.check(delivery)), (vec![], Ok(())));
    group.wait(LEASE);
    assert_eq!(group.exhausted().len(), 1);
}

// Which messages, in which order.

#[test]
fn a_new_group_begins_with_the_earliest_retained_message() {
    let mut group = Group::on(&[10, 3]);
    group.topic.min[0].set(8);
    assert_eq!(group.state.ready(&group.topic), 5);
    let got: Vec<_> = group.pop(8).iter().map(|delivery| (delivery.queue.0, delivery.offset.0)).collect();
    assert_eq!(got, [(0, 8), (0, 9), (1, 0), (1, 1), (1, 2)]);
    assert_eq!((group.state.ready(&group.topic), group.state.inflight()), (0, 5));
}

#[test]
fn messages_that_come_back_take_half_of_a_batch_while_there_are_new_ones() {
    let mut group = Group::on(&[8]);
    group.pop(8);
    group.wait(LEASE);
    group.topic.queues[0].extend([None; 2]);
    assert_eq!(attempts(&group.pop(5)), [(0, 2), (1, 2), (2, 2), (8, 1), (9, 1)]);
    assert_eq!(attempts(&group.pop(3)), [(3, 2), (4, 2), (5, 2)], "nothing new is left");
}

#[test]
fn messages_come_back_in_the_order_in_which_their_deliveries_ended() {
    let mut group = Group::on(&[3]);
    let deliveries = group.pop(3);
    for (delivery, after) in deliveries.into_iter().zip([3, 1, 2]) {
        group.change(delivery, seconds(after), true);
    }
    group.wait(seconds(3));
    assert_eq!(attempts(&group.pop(3)), [(1, 2), (2, 2), (0, 2)]);
}

#[test]
fn queues_give_new_messages_in_turn() {
    let mut group = Group::on(&[9, 9, 0, 9]);
    let queues: Vec<u32> = (0..6).map(|_| group.pop_one().queue.0).collect();
    assert_eq!(queues, [0, 1, 3, 0, 1, 3]);
}

#[test]
fn a_queue_with_a_backlog_is_served_though_another_always_has_something() {
    let mut group = Group::on(&[0, 0, 100]);
    let mut served = [0; 3];
    for _ in 0..50 {
        group.topic.queues[0].push(None);
        served[group.pop_one().queue.0 as usize] += 1;
    }
    assert_eq!(served, [25, 0, 25]);
}

#[test]
fn a_topic_that_lost_queues_is_still_served() {
    let mut group = Group::on(&[1, 1, 1]);
    group.pop(3);
    group.topic.queues.truncate(1);
    group.topic.queues[0].push(None);
    assert_eq!(attempts(&group.pop(3)), [(1, 1)]);
}

#[test]
fn more_is_said_exactly_when_something_is_left() {
    let mut group = Group::on(&[2, 1]);
    assert!(group.plan(2).more, "the other queue");
    assert!(group.plan(1).more, "the same queue");
    assert!(!group.plan(3).more);
    group.pop(3);
    assert!(!group.plan(1).more);
    group.wait(LEASE);
    assert!(group.plan(2).more, "one that came back");
    assert!(!group.plan(3).more);
    group.topic.queues[0].push(None);
    assert!(group.plan(3).more);
    assert!(!group.plan(4).more);
}

#[test]
fn a_plan_that_is_not_carried_out_changes_nothing() {
    let mut group = Group::on(&[5, 5]);
    group.pop_as(ANNA, 3);
    group.wait(LEASE);
    let before = group.snapshot();
    let plan = group.plan(4);
    assert_eq!(group.plan(4), plan);
    assert_eq!(group.snapshot(), before);
}

// Filters.

#[test]
fn messages_that_are_not_wanted_are_skipped_for_the_whole_group() {
    let mut group = Group::on_tags(&[A, B, None, A], "a");
    assert_eq!(attempts(&group.pop(8)), [(0, 1), (3, 1)]);
    group.filter = FilterExpression::ALL;
    assert_eq!(group.pop(8), []);
    assert_eq!(group.state.ready(&group.topic), 0);
}

#[test]
fn skipping_is_a_change_even_if_nothing_is_delivered() {
    let mut group = Group::on_tags(&[B, B], "a");
    let plan = group.plan(8);
    assert!(plan.record.is_some() && plan.messages.is_empty() && !plan.more);
    group.carry_out(plan);
    assert_eq!(group.plan(8).record, None);
}

#[test]
fn a_tag_with_the_same_hash_is_left_to_whoever_reads_the_message() {
    let mut group = Group::on_tags(&[A, B, A], "a");
    group.topic.colliding = A;
    let deliveries = group.pop(8);
    assert_eq!(attempts(&deliveries), [(0, 1), (1, 1), (2, 1)]);
    group.log(&DeliveryRecord::Dropped { entries: vec![(deliveries[1].queue, deliveries[1].offset)] });
    assert_eq!(group.check(deliveries[1]), Err(NotHeld::Finished));
    group.wait(LEASE);
    assert_eq!(attempts(&group.pop(8)), [(0, 2), (2, 2)]);
}

#[test]
fn a_message_that_comes_back_to_a_group_that_does_not_want_it_is_finished() {
    let mut group = Group::on_tags(&[A, B], "*");
    let deliveries = group.pop(2);
    group.wait(LEASE);
    group.filter = FilterExpression::parse_tag("b").unwrap();
    assert_eq!(attempts(&group.pop(2)), [(1, 2)]);
    assert_eq!(group.check(deliveries[0]), Err(NotHeld::Finished));
    assert_eq!(group.state.inflight(), 1);
}

#[test]
fn a_filter_that_matches_nothing_does_not_hold_the_lock_for_long() {
    let mut tags = vec![B; 2 * SCAN_MAX + 10];
    tags.push(A);
    let mut group = Group::on_tags(&tags, "a");
    for pass in 1..=2 {
        let plan = group.plan(8);
        assert!(plan.more && plan.messages.is_empty());
        group.carry_out(plan);
        assert_eq!(group.state.ready(&group.topic) as usize, tags.len() - pass * SCAN_MAX);
    }
    assert_eq!(group.pop(8).len(), 1);
}

// Retention.

#[test]
fn what_retention_took_is_neither_delivered_nor_kept() {
    let mut group = Group::on(&[6]);
    let deliveries = group.pop(2);
    group.topic.min[0].set(4);
    assert_eq!(group.state.ready(&group.topic), 2);
    group.wait(LEASE);
    assert_eq!(attempts(&group.pop(8)), [(4, 1), (5, 1)]);
    assert_eq!(group.state.inflight(), 2);
    assert_eq!(group.check(deliveries[0]), Err(NotHeld::Finished));
}

#[test]
fn an_exhausted_message_that_retention_took_is_left_to_the_next_receive() {
    let mut group = Group::on(&[3, 3]);
    exhaust(&mut group);
    group.topic.min[0].set(2);
    group.topic.min[1].set(1);
    let places = [(0, 2), (1, 1), (1, 2)].map(|(queue, offset)| (QueueId(queue), QueueOffset(offset)));
    assert_eq!(group.exhausted(), places);
    assert_eq!(group.state.inflight(), 6);
    assert_eq!(group.pop(1), []);
    assert_eq!(group.state.inflight(), 3);
    assert_eq!(group.exhausted(), places);
}

#[test]
fn retention_that_overtakes_a_receive_is_no_error() {
    let mut group = Group::on(&[6]);
    group.topic.overtaking.set(Some(4));
    assert_eq!(attempts(&group.pop(8)), [(4, 1), (5, 1)]);
    group.wait(LEASE);
    group.topic.overtaking.set(Some(5));
    assert_eq!(attempts(&group.pop(8)), [(5, 2)]);
    assert_eq!(group.state.inflight(), 1);
}

#[test]
fn a_group_that_stopped_receiving_forgets_what_retention_took() {
    let mut group = Group::on(&[4, 1]);
    group.pop_as(ANNA, 3);
    assert_eq!(group.state.plan_trim(&group.topic), None);
    group.topic.min[0].set(2);
    let trim = group.state.plan_trim(&group.topic).unwrap();
    assert_eq!(trim, DeliveryRecord::Trimmed { floors: vec![(QueueId(0), QueueOffset(2))] });
    group.log(&trim);
    assert_eq!((group.state.inflight(), group.state.plan_trim(&group.topic)), (1, None));
    group.topic.min[0].set(4);
    let trim = group.state.plan_trim(&group.topic).unwrap();
    group.log(&trim);
    assert!(group.state.inflight() == 0 && group.state.schedule.owner_until(ANNA).is_none());
    assert_eq!(group.state.next_due_after(group.now), None);
    assert_eq!(group.state.next(QueueId(0)), QueueOffset(4));
}

#[test]
fn a_queue_whose_index_cannot_be_read_stops_no_other() {
    let mut group = Group::on(&[2, 2]);
    group.topic.hole = Some(0);
    assert!(group.try_plan(8, None).is_err());
    let mut group = Group::on(&[2, 2]);
    group.pop(1);
    group.topic.hole = Some(1);
    let got: Vec<_> = group.pop(8).iter().map(|delivery| (delivery.queue.0, delivery.offset.0)).collect();
    assert_eq!(got, [(1, 0)]);
}

#[test]
fn a_hole_in_the_index_is_an_error_and_loses_nothing() {
    let mut group = Group::on(&[4]);
    group.topic.hole = Some(2);
    assert_eq!(attempts(&group.pop(2)), [(0, 1), (1, 1)]);
    assert!(group.try_plan(8, None).is_err());
    group.topic.hole = Some(0);
    group.wait(LEASE);
    assert_eq!(attempts(&group.pop(8)), [(1, 2), (2, 1), (3, 1)], "the others do not suffer");
    assert!(group.try_plan(8, None).is_err());
    group.topic.hole = None;
    assert_eq!(attempts(&group.pop(8)), [(0, 2)]);
}

// Cost.

#[test]
fn an_idle_receive_looks_only_at_queues_that_grew() {
    let mut group = Group::on(&[1; 10_000]);
    group.tells_growth = true;
    group.pop_all();
    let looks = |group: &mut Group| {
        let before = group.topic.looks.get();
        let delivered = group.pop_all().len();
        (delivered, group.topic.looks.get() - before)
    };
    // What was delivered last is struck off by the receive that finds it empty.
    looks(&mut group);
    assert_eq!(looks(&mut group), (0, 0));
    for queue in [7, 9_000, 30] {
        group.topic.queues[queue].extend([A, A]);
        group.state.grew([QueueId(queue as u32)]);
    }
    assert_eq!(group.state.ready(&group.topic), 6);
    let (delivered, looked) = looks(&mut group);
    assert!(delivered == 6 && looked <= 12, "{delivered} delivered, {looked} looks");
    assert_eq!(looks(&mut group).0, 0);
    assert_eq!(looks(&mut group), (0, 0));
}

#[test]
fn a_plan_that_was_not_carried_out_hides_nothing() {
    let mut group = Group::on(&[0, 3]);
    group.tells_growth = true;
    for _ in 0..3 {
        assert_eq!(group.plan(8).messages.len(), 3);
    }
    assert_eq!(group.pop(8).len(), 3);
}

// Bounds.

#[test]
fn a_full_group_gets_what_comes_back_but_nothing_new() {
    let mut group = Group::on(&[20]);
    group.inflight_max = 10;
    let deliveries = group.pop(32);
    assert_eq!(deliveries.len(), 10);
    let plan = group.plan(32);
    assert!(plan.inflight_full && plan.record.is_none() && !plan.more);
    group.wait(LEASE);
    let again = group.pop(32);
    assert!(again.len() == 10 && again.iter().all(|delivery| delivery.attempt == 2));
    group.ack(&again[..3]);
    assert_eq!(attempts(&group.pop(32)), [(10, 1), (11, 1), (12, 1)]);
}

#[test]
fn a_group_is_not_full_if_nothing_new_is_there() {
    let mut group = Group::on(&[2]);
    group.inflight_max = 2;
    group.pop(2);
    assert!(!group.plan(2).inflight_full);
}

#[test]
fn messages_that_are_dropped_make_room_at_once() {
    let mut group = Group::on(&[4]);
    group.inflight_max = 2;
    group.pop(2);
    group.wait(LEASE);
    group.topic.min[0].set(2);
    assert_eq!(attempts(&group.pop(8)), [(2, 1), (3, 1)]);
}

#[test]
fn the_record_of_a_receive_has_a_small_bound() {
    let counts = vec![400; 200];
    let mut group = Group::on(&counts);
    let all = group.pop_all();
    // Everything comes back, scattered so that nothing forms runs; half of it is not wanted any more.
    for delivery in all {
        let after = seconds(u64::from(delivery.queue.0) + (delivery.offset.0 * 7919) % 400 * 300);
        group.change(delivery, after, true);
    }
    group.wait(seconds(1_000_000));
    for (queue, tags) in group.topic.queues.iter_mut().enumerate() {
        *tags = (0..400).map(|offset| if (queue + offset) % 3 == 0 { A } else { B }).collect();
        tags.extend([B; 3]);
    }
    group.filter = FilterExpression::parse_tag("a").unwrap();
    let mut largest = 0;
    loop {
        let plan = group.plan(RECEIVE_BATCH_MAX as usize);
        let Some(record) = &plan.record else { break };
        let DeliveryRecord::Delivered { dropped, cursors, .. } = record else { panic!() };
        assert!(dropped.len() <= DROPPED_MAX && cursors.len() <= CURSORS_MAX);
        assert_eq!(plan.more, group.state.ready(&group.topic) > 200 || plan.more);
        let mut body = Vec::new();
        record.encode(GroupId(1), TopicId(1), &mut body);
        largest = largest.max(body.len());
        group.carry_out(plan);
    }
    assert!((2000..4000).contains(&largest), "{largest}");
    assert_eq!(group.state.ready(&group.topic), 0);
}

#[test]
fn acknowledgements_above_holes_cost_nothing() {
    let mut group = Group::on(&[100_000]);
    let all = group.pop_all();
    group.ack(&all[1..]);
    assert_eq!(group.state.inflight(), 1);
    assert!(group.snapshot().len() < 100);
}

#[test]
fn a_snapshot_of_whole_batches_is_small() {
    let mut group = Group::on(&[100_000]);
    group.pop_all();
    assert!(group.snapshot().len() < 2 * 100_000, "{}", group.snapshot().len());
}

// Records.

#[test]
fn a_record_about_finished_messages_has_no_effect() {
    let mut group = Group::on(&[3]);
    let delivered = group.plan(3).record.unwrap();
    let entries = vec![(QueueId(0), QueueOffset(1)), (QueueId(7), QueueOffset(0)), (QueueId(0), QueueOffset(9))];
    group.log(&delivered);
    group.log(&DeliveryRecord::Acked { entries: entries.clone() });
    let before = group.snapshot();
    group.log(&DeliveryRecord::Acked { entries: entries.clone() });
    let visible_at = group.now;
    group.log(&DeliveryRecord::VisibilityChanged { visible_at, counted: true, entries });
    group.log(&DeliveryRecord::OwnersRenewed { until: visible_at, owners: vec![ANNA] });
    group.log(&DeliveryRecord::OwnerReleased { owner: ANNA, visible_at });
    group.state.finish(QueueId(3), QueueOffset(3));
    // A second time, at its own place in the log.
    group.state.apply(&delivered, LogOffset(0));
    assert_eq!(group.snapshot(), before);
}

#[test]
fn a_delivery_of_a_finished_message_does_not_bring_it_back() {
    let mut group = Group::on(&[1]);
    let delivered = group.plan(1).record.unwrap();
    let delivery = group.pop_one();
    group.ack(&[delivery]);
    group.log(&delivered);
    assert_eq!(group.state.inflight(), 0);
}

#[test]
fn a_record_with_far_queues_and_offsets_is_survived() {
    let mut group = Group::on(&[1]);
    let far = (QueueId(u32::MAX), QueueOffset(u64::MAX - 1));
    let record = DeliveryRecord::Delivered {
        visible_at: group.now,
        renewal: None,
        deliveries: vec![(far.0, far.1, u32::MAX)],
        dropped: vec![far],
        cursors: vec![(far.0, QueueOffset(u64::MAX))],
    };
    group.log(&record);
    assert_eq!(group.exhausted(), []);
    assert_eq!(attempts(&group.pop(1)), [(0, 1)]);
}

// Bytes.

#[test]
fn the_bytes_of_a_batch_are_bounded() {
    // 1, 2, 3, 4, 1, 2, 3, 4 bytes.
    let mut group = Group::on(&[8]);
    group.bytes_max = 6;
    let plan = group.plan(32);
    assert!(plan.more);
    assert_eq!(attempts(&group.carry_out(plan)), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(attempts(&group.pop(32)), [(3, 1), (4, 1)]);
    group.wait(LEASE);
    let plan = group.plan(32);
    assert!(plan.more);
    // Half of them come back, new ones fill the rest.
    assert_eq!(attempts(&group.carry_out(plan)), [(0, 2), (1, 2), (5, 1)]);
}

#[test]
fn a_message_that_is_larger_than_the_bound_goes_all_the_same() {
    let mut group = Group::on(&[4]);
    group.bytes_max = 1;
    assert_eq!(group.pop_all().len(), 4);
    group.wait(LEASE);
    let again: Vec<_> = (0..4).map(|_| group.pop_one().offset.0).collect();
    assert_eq!(again, [0, 1, 2, 3]);
}

#[test]
fn a_large_message_is_not_passed_over_for_ever_by_what_comes_back() {
    let mut group = Group::on(&[4]);
    group.bytes_max = 2;
    group.max_attempts = 1_000;
    group.pop(1);
    // The message of 1 byte comes back each time; those of 2, 3 and 4 bytes go beside it.
    for offset in 1..4 {
        group.wait(LEASE);
        let got = group.pop(32);
        assert!(got.iter().any(|delivery| delivery.offset.0 == offset), "{got:?}");
        let new: Vec<_> = got.into_iter().filter(|delivery| delivery.offset.0 > 0).collect();
        group.ack(&new);
    }
}

// Damage.

#[test]
fn a_damaged_message_is_set_aside_and_stops_nothing() {
    let mut group = Group::on(&[3]);
    let deliveries = group.pop(3);
    group.set_aside(&deliveries[1..2]);
    assert_eq!((group.state.inflight(), group.state.damaged()), (2, 1));
    assert_eq!(group.check(deliveries[1]), Err(NotHeld::Expired), "it is not finished");
    group.ack(&deliveries);
    assert_eq!((group.state.inflight(), group.state.damaged()), (0, 1), "nor can it be acknowledged");
    group.wait(LEASE);
    assert_eq!(group.pop_all(), []);
    assert_eq!(group.exhausted(), []);
    let record = group.state.plan_trim(&group.topic);
    assert_eq!(record, None);
    group.topic.min[0].set(2);
    let record = group.state.plan_trim(&group.topic).unwrap();
    group.log(&record);
    assert_eq!(group.state.damaged(), 0, "retention took it");
}

#[test]
fn what_was_set_aside_and_given_up_is_finished() {
    let mut group = Group::on(&[4]);
    let deliveries = group.pop(3);
    group.set_aside(&deliveries[..2]);
    let places = group.state.set_aside_messages(None, 10);
    assert_eq!((places.len(), group.state.set_aside_messages(None, 1).len()), (2, 1));
    assert_eq!(group.state.set_aside_messages(Some(places[0]), 10), places[1..]);
    assert_eq!(group.state.set_aside_messages(Some(places[1]), 10), []);
    let standing =
        |group: &Group| (0..4).map(|offset| group.state.standing(places[0].0, QueueOffset(offset))).collect::<Vec<_>>();
    use crate::delivery::MessageStanding::*;
    assert_eq!(standing(&group), [SetAside, SetAside, Outstanding, ToCome]);
    group.log(&DeliveryRecord::Dropped { entries: places[..1].to_vec() });
    assert_eq!(group.state.damaged(), 1);
    assert_eq!(standing(&group), [Finished, SetAside, Outstanding, ToCome]);
    group.log(&DeliveryRecord::Dropped { entries: places.clone() });
    assert_eq!((group.state.damaged(), group.state.inflight()), (0, 1));
}

#[test]
fn what_is_finished_cannot_be_set_aside_any_more() {
    let mut group = Group::on(&[1]);
    let deliveries = group.pop(1);
    group.ack(&deliveries);
    group.set_aside(&deliveries);
    assert_eq!(group.state.damaged(), 0);
    assert_eq!(group.check(deliveries[0]), Err(NotHeld::Finished));
}
