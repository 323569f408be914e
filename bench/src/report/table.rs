//! The table.

use super::units::{bytes, count, micros};
use super::{Amount, EndedBy, Integrity, ProduceResult, Report};
use crate::errors::ErrorCount;
use crate::flags::{GroupArgs, LoadArgs};
use crate::stats::Quantiles;
use std::fmt::Write as _;
use std::time::Duration;

/// Writes the table. Writing to a string cannot fail.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let _ = head(&mut text, report);
    let _ = amounts(&mut text, report);
    let _ = latencies(&mut text, report);
    let _ = outcome(&mut text, report);
    text
}

fn head(text: &mut String, report: &Report) -> std::fmt::Result {
    let parameters = &report.parameters;
    let endpoints: Vec<String> = parameters.target.endpoint.iter().map(ToString::to_string).collect();
    writeln!(text, "{}: topic {} at {}", report.benchmark, parameters.target.topic(), endpoints.join(", "))?;
    if let Some(produce) = &parameters.produce {
        writeln!(text, "  {}", produced_by(produce))?;
    }
    if let Some(consume) = &parameters.consume {
        writeln!(text, "  {}", consumed_by(consume))?;
    }
    let seconds = report.seconds;
    let span = |span: Duration| micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    write!(text, "  measured {}", span(seconds.measured))?;
    if !seconds.warmup.is_zero() {
        write!(text, " after {} of warm-up", span(seconds.warmup))?;
    }
    match report.ended_by {
        EndedBy::Interrupt => write!(text, ", interrupted")?,
        EndedBy::Idle => write!(text, ", ended because nothing more came")?,
        EndedBy::Duration | EndedBy::Count => {}
    }
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
    format!(
        "{} in group {}, batches of {}, {acks}",
        plural(consume.consumers, &format!("{} consumer", consume.client())),
        consume.group,
        consume.receive_batch
    )
}

fn amounts(text: &mut String, report: &Report) -> std::fmt::Result {
    let sent = report.produce.as_ref().map(|produce| ("sent", &produce.amount));
    let received = report.consume.as_ref().map(|consume| ("received", &consume.amount));
    writeln!(text, "\n  {:<11}{:>14}{:>13}{:>12}", "", "messages", "msg/s", "MiB/s")?;
    for (name, amount) in sent.into_iter().chain(received) {
        let Amount { messages, messages_per_second, mib_per_second, .. } = *amount;
        let (messages, rate) = (count(messages), count(messages_per_second.round() as u64));
        writeln!(text, "  {name:<11}{messages:>14}{rate:>13}{mib_per_second:>12.2}")?;
    }
    Ok(())
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    let mut rows: Vec<(&str, Option<Quantiles>)> = Vec::new();
    if let Some(consume) = &report.consume {
        rows.push(("end to end", consume.end_to_end_us));
    }
    if let Some(produce) = &report.produce {
        rows.push(("send", produce.latency_us));
        if report.parameters.produce.as_ref().is_some_and(|produce| produce.rate.is_some()) {
            rows.push(("start delay", produce.start_delay_us));
        }
    }
    if let Some(consume) = &report.consume {
        rows.push(("receive", consume.receive_latency_us));
        rows.push(("ack", consume.ack_latency_us));
    }
    let rows: Vec<_> = rows.into_iter().filter_map(|(name, quantiles)| Some((name, quantiles?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n  {:<11}{:>11}{:>11}{:>11}{:>11}{:>11}", "latency", "p50", "p90", "p99", "p99.9", "max")?;
    for (name, Quantiles { p50, p90, p99, p99_9, max, .. }) in rows {
        write!(text, "  {name:<11}")?;
        for value in [p50, p90, p99, p99_9, max] {
            write!(text, "{:>11}", micros(value))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn outcome(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text)?;
    if let Some(ProduceResult { unsent: unsent @ 1.., .. }) = report.produce {
        let unsent = count(unsent);
        writeln!(
            text,
            "  not sent: {unsent} messages were due with all calls in flight taken; server or client cannot keep this rate up"
        )?;
    }
    if let Some(consume) = &report.consume {
        let accepted = report.produce.as_ref().map(|produce| produce.acknowledged);
        writeln!(text, "  messages: {}", fate(accepted, &consume.integrity))?;
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

fn fate(accepted: Option<u64>, integrity: &Integrity) -> String {
    let counts = &integrity.counts;
    let mut parts = Vec::new();
    if let Some(accepted) = accepted {
        parts.push(format!("{} accepted", count(accepted)));
    }
    parts.push(format!("{} received", count(counts.received())));
    parts.push(match (integrity.lost, integrity.gaps) {
        (Some(lost), _) => format!("{} lost", count(lost)),
        (None, Some(gaps)) => format!("{} not yet received", count(gaps)),
        (None, None) => "loss unknown".to_owned(),
    });
    parts.push(plural(counts.duplicates, "duplicate"));
    parts.push(format!("{} corrupt", count(counts.corrupt)));
    for (name, number) in [("foreign", counts.foreign), ("untracked", counts.untracked)] {
        if number > 0 {
            parts.push(format!("{} {name}", count(number)));
        }
    }
    parts.join(", ")
}

fn plural(number: impl Into<u64>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{} {thing}s", count(number)),
    }
}
