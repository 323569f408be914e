"""The scenarios, each a function of its fixture; what they mean is in ../README.md."""

import time

from fixture import check, expect

MIB = 1 << 20


def send_receive_ack(fixture):
    producer = fixture.producer()
    consumer = fixture.simple_consumer()
    sent = [
        fixture.send(
            producer,
            f"body {i}".encode(),
            tag="tag",
            keys=[f"key-{i}", f"other-key-{i}"],
            # This client refuses properties with empty values.
            properties={"index": str(i), "unicode": "grüße, 世界 🚀", "plain": "value"},
        )
        for i in range(20)
    ]
    by_id = {one.id: one for one in sent}
    expect("number of different message ids", len(by_id), len(sent))
    for message in fixture.receive(consumer, len(sent)):
        check(message.message_id in by_id, f"message id {message.message_id} is unknown or came twice")
        by_id.pop(message.message_id).verify(message)
        expect("topic", message.topic, fixture.topic)
        consumer.ack(message)
    fixture.expect_nothing(consumer)


def push_consume(fixture):
    inbox = fixture.push_consumer()
    producer = fixture.producer()
    sent = [fixture.send(producer, f"body {i}".encode()) for i in range(50)]
    deliveries = inbox.wait_for(len(sent), fixture)
    expect("delivered ids", sorted(m.message_id for m in deliveries), sorted(one.id for one in sent))


def tag_filter(fixture):
    producer = fixture.producer()
    consumer = fixture.simple_consumer(tags="a || b")
    sent = [fixture.send(producer, f"{tag} {i}".encode(), tag=tag) for i in range(3) for tag in ("a", "b", "c", None)]
    wanted = sorted(one.id for one in sent if one.tag in ("a", "b"))
    messages = fixture.receive(consumer, len(wanted))
    expect("received ids", sorted(message.message_id for message in messages), wanted)
    for message in messages:
        consumer.ack(message)
    fixture.expect_nothing(consumer)


def redelivery(fixture):
    consumer = fixture.simple_consumer()
    sent = fixture.send(fixture.producer(), b"unacknowledged at first")
    sent.verify(fixture.receive_one(consumer, invisible=10))
    received = time.monotonic()
    again = fixture.receive_one(consumer)
    waited = time.monotonic() - received
    sent.verify(again, attempt=2)
    check(waited >= 9.5, f"redelivered after {waited:.1f} s, invisible for 10 s")
    consumer.ack(again)
    fixture.expect_nothing(consumer)


def change_invisible(fixture):
    consumer = fixture.simple_consumer()
    sent = fixture.send(fixture.producer(), b"shortened")
    message = fixture.receive_one(consumer, invisible=60)
    sent.verify(message)
    changed = time.monotonic()
    consumer.change_invisible_duration(message, 1)
    again = fixture.receive_one(consumer)
    waited = time.monotonic() - changed
    sent.verify(again, attempt=2)
    check(waited <= 10, f"redelivered after {waited:.1f} s, invisible for 1 s")
    consumer.ack(again)
    fixture.expect_nothing(consumer)


def dead_letter(fixture):
    consumer = fixture.simple_consumer()
    sent = fixture.send(fixture.producer(), b"never acknowledged", properties={"kept": "yes"})
    for attempt in (1, 2):
        message = fixture.receive_one(consumer)
        sent.verify(message, attempt)
        consumer.change_invisible_duration(message, 1)
    fixture.expect_nothing(consumer)
    reader = fixture.simple_consumer(topic=f"%DLQ%{fixture.group}", group=f"{fixture.topic}-reader")
    dead = fixture.receive_one(reader)
    expect("message id of the dead letter", dead.message_id, sent.id)
    expect("topic of the dead letter", dead.topic, f"%DLQ%{fixture.group}")
    expect("property of the dead letter", dead.properties.get("kept"), "yes")
    sent.verify_body(dead)
    reader.ack(dead)
    fixture.expect_nothing(reader)
    fixture.expect_nothing(consumer)


def push_retry(fixture):
    inbox = fixture.push_consumer(accept=lambda message: message.delivery_attempt > 1)
    sent = fixture.send(fixture.producer(), b"refused at first")
    first, second = inbox.wait_for(2, fixture)
    sent.verify(first, attempt=1)
    sent.verify(second, attempt=2)


def large_body(fixture):
    producer = fixture.producer()
    consumer = fixture.simple_consumer()
    for size in (MIB, MIB * 39 // 10):
        sent = fixture.send(producer, (bytes(range(251)) * (size // 251 + 1))[:size])
        message = fixture.receive_one(consumer)
        sent.verify(message)
        consumer.ack(message)


def empty_poll(fixture):
    consumer = fixture.simple_consumer(await_seconds=5)
    asked = time.monotonic()
    fixture.expect_nothing(consumer)
    waited = time.monotonic() - asked
    check(3 <= waited <= 10, f"an empty receive took {waited:.1f} s, asked to wait 5 s")


SCENARIOS = {
    "send-receive-ack": send_receive_ack,
    "push-consume": push_consume,
    "tag-filter": tag_filter,
    "redelivery": redelivery,
    "change-invisible": change_invisible,
    "dead-letter": dead_letter,
    "push-retry": push_retry,
    "large-body": large_body,
    "empty-poll": empty_poll,
}
