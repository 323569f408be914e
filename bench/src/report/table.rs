//! The table.

use super::units::{bytes, count, micros};
use super::{Amount, EndedBy, Integrity, Report};
use crate::errors::ErrorCount;
use crate::flags::{GroupArgs, LoadArgs, client};
use crate::stats::Quantiles;
use std::fmt::Write as _;
use std::time::Duration;

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, report).and_then(|()| numbers(&mut text, report)).and_then(|()| outcome(&mut text, report));
    text
}

fn head(text: &mut String, report: &Report) -> std::fmt::Result {
    let parameters = &report.parameters;
    let endpoints: Vec<String> = parameters.target.endpoint.iter().map(ToString::to_string).collect();
    writeln!(text, "{}: topic {} at {}", report.benchmark, parameters.target.topic(), endpoints.join(", "))?;
    for line in parameters.produce.iter().map(produced_by).chain(parameters.consume.iter().map(consumed_by)) {
        writeln!(text, "  {line}")?;
    }
    let span = |span: Duration| micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    write!(text, "  measured {}", span(report.seconds.measured))?;
    if !report.seconds.warmup.is_zero() {
        write!(text, " after {} of warm-up", span(report.seconds.warmup))?;
    }
    text.push_str(match report.ended_by {
        EndedBy::Interrupt => ", interrupted",
        EndedBy::Idle => ", ended because nothing more came",
        EndedBy::Duration | EndedBy::Count => "",
    });
    writeln!(text, ", run {}", report.run_id)
}

fn produced_by(produce: &LoadArgs) -> String {
    let pace = match produce.rate {
        Some(rate) => format!("open loop of {rate} msg/s, at most {} calls in flight", produce.inflight),
        None => format!("closed loop of {} calls in flight", produce.inflight),
    };
    let size = bytes(produce.size);
    let messages = match produce.batch {
        1 => format!("one message of {size} per call"),
        batch => format!("{batch} messages of {size} per call"),
    };
    format!("{}, {pace}, {messages}", plural(produce.connections, "producer"))
}

fn consumed_by(consume: &GroupArgs) -> String {
    let acks = match consume.ack_batch {
        None => "no acknowledgements".to_owned(),
        Some(1) => "acknowledged one by one".to_owned(),
        Some(batch) => format!("acknowledged by {batch}"),
    };
    let consumers = plural(consume.consumers, &format!("{} consumer", client(consume.push)));
    format!("{consumers} in group {}, batches of {}, {acks}", consume.group, consume.receive_batch)
}

/// What was moved, and how long calls took.
fn numbers(text: &mut String, report: &Report) -> std::fmt::Result {
    let (sent, received) = (report.produce.as_ref(), report.consume.as_ref());
    writeln!(text, "\n  {:<11}{:>14}{:>13}{:>12}", "", "messages", "msg/s", "MiB/s")?;
    for (name, amount) in [("sent", sent.map(|sent| sent.amount)), ("received", received.map(|taken| taken.amount))] {
        let Some(Amount { messages, messages_per_second, mib_per_second, .. }) = amount else { continue };
        let (messages, rate) = (count(messages), count(messages_per_second.round() as u64));
        writeln!(text, "  {name:<11}{messages:>14}{rate:>13}{mib_per_second:>12.2}")?;
    }
    let open_loop = report.parameters.produce.as_ref().is_some_and(|produce| produce.rate.is_some());
    let rows = [
        ("end to end", received.and_then(|received| received.end_to_end_us)),
        ("send", sent.and_then(|sent| sent.latency_us)),
        ("start delay", sent.filter(|_| open_loop).and_then(|sent| sent.start_delay_us)),
        ("receive", received.and_then(|received| received.receive_latency_us)),
        ("ack", received.and_then(|received| received.ack_latency_us)),
    ];
    for (index, (name, quantiles)) in rows.iter().filter(|(_, quantiles)| quantiles.is_some()).enumerate() {
        if index == 0 {
            writeln!(text, "\n  {:<11}{:>11}{:>11}{:>11}{:>11}{:>11}", "latency", "p50", "p90", "p99", "p99.9", "max")?;
        }
        let Some(Quantiles { p50, p90, p99, p99_9, max, .. }) = quantiles else { continue };
        let values: String = [p50, p90, p99, p99_9, max].map(|value| format!("{:>11}", micros(*value))).concat();
        writeln!(text, "  {name:<11}{values}")?;
    }
    writeln!(text)
}

fn outcome(text: &mut String, report: &Report) -> std::fmt::Result {
    let (sent, received) = (report.produce.as_ref(), report.consume.as_ref());
    if let Some(unsent @ 1..) = sent.map(|sent| sent.unsent) {
        let unsent = count(unsent);
        writeln!(
            text,
            "  not sent: {unsent} messages were due with all calls in flight taken; server or client cannot keep this rate up"
        )?;
    }
    if let Some(consume) = received {
        let accepted = sent.map(|sent| format!("{} accepted, ", count(sent.acknowledged))).unwrap_or_default();
        writeln!(text, "  messages: {accepted}{}", fate(&consume.integrity))?;
    }
    if report.errors.is_empty() {
        return writeln!(text, "  errors: none");
    }
    writeln!(text, "  errors: {}", count(report.errors.iter().map(|error| error.count).sum()))?;
    for ErrorCount { operation, code, count: times, first } in &report.errors {
        let first = first.lines().next().unwrap_or_default();
        writeln!(text, "  {:>9}  {operation:<10}  {code}: {first}", count(*times))?;
    }
    Ok(())
}

fn fate(integrity: &Integrity) -> String {
    let counts = &integrity.counts;
    let lost = match (integrity.lost, integrity.gaps) {
        (Some(lost), _) => format!("{} lost", count(lost)),
        (None, Some(gaps)) => format!("{} not yet received", count(gaps)),
        (None, None) => "loss unknown".to_owned(),
    };
    let (received, duplicates) = (count(integrity.received), plural(counts.duplicates, "duplicate"));
    let mut text = format!("{received} received, {lost}, {duplicates}, {} corrupt", count(counts.corrupt));
    for (name, number) in [("foreign", counts.foreign), ("untracked", counts.untracked)] {
        if number > 0 {
            text += &format!(", {} {name}", count(number));
        }
    }
    text
}

fn plural(number: impl Into<u64>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{} {thing}s", count(number)),
    }
}
