//! What everything in a run shares: whom it loads, its id, its clock, the wish to stop, and where progress is shown.

use super::args::Command;
use super::body::RunId;
use super::client::{self, Target};
use super::clock::{Moment, RunClock};
use super::progress::ProgressOutput;
use super::report::{EndedBy, Parameters, Report, Seconds};
use super::stats::ErrorTable;
use super::stop::Stop;
use gantry_proto::env::Env;
use std::sync::Arc;

/// One run.
pub(super) struct Run {
    target: Arc<Target>,
    id: RunId,
    started: Moment,
    stop: Stop,
    progress: ProgressOutput,
}

impl Run {
    /// A run that has not begun.
    pub(super) fn new(command: &Command, env: &Env, stop: Stop, progress: ProgressOutput) -> Run {
        let args = command.common();
        let clock = RunClock::set_by(&*env.clock);
        let target = Target {
            endpoints: args.endpoint.clone(),
            namespace: args.namespace.clone(),
            topic: command.topic().to_owned(),
            timeout: args.timeout,
            clock,
            random: env.random.clone(),
            errors: Arc::new(ErrorTable::default()),
        };
        let id = RunId(target.random_u64());
        Run { target: Arc::new(target), id, started: clock.now(), stop, progress }
    }

    /// Looks for the topic, and creates it and the group when the flags say so.
    pub(super) async fn prepare(&self, command: &Command) -> anyhow::Result<()> {
        let args = command.common();
        client::prepare(&self.target, args.creates_topic(), args.queues, command.group()).await
    }

    /// Whom it loads.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Its id, which every message carries.
    pub(super) fn id(&self) -> RunId {
        self.id
    }

    /// Its clock.
    pub(super) fn clock(&self) -> &RunClock {
        &self.target.clock
    }

    /// The wish to stop.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Where progress is shown.
    pub(super) fn progress(&self) -> &ProgressOutput {
        &self.progress
    }

    /// A report without results.
    pub(super) fn report(
        &self,
        benchmark: &'static str,
        ended_by: EndedBy,
        seconds: Seconds,
        parameters: Parameters,
    ) -> Report {
        Report {
            benchmark,
            run: self.id,
            started: self.started,
            ended_by,
            seconds,
            parameters,
            produce: None,
            consume: None,
            errors: self.target.errors.counts(),
        }
    }
}
