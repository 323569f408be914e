//! Many runs: each seed in a process of its own, so that counters which are global to a process begin alike; then what came
//! of them, with the command that repeats a failure.

use crate::env::DiskLies;
use crate::faults::Fault;
use crate::outside;
use crate::run::{Plan, Verdict};
use crate::scenario;
use crate::trace::Trace;
use anyhow::{Context as _, bail};
use clap::Parser;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of the simulation's thread.
const STACK_BYTES: usize = 64 << 20;
/// Lines of the trace that are shown when a run fails.
const LINES_SHOWN: usize = 60;
/// What begins the lines of a verdict, which follow the trace.
const MARK: &str = "= ";

/// Runs Gantry's tiers in a deterministic simulation, with faults, and checks what must always hold.
#[derive(Clone, Debug, Parser)]
#[command(name = "gantry-sim", version)]
pub struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, counted from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Run one seed after the other for this many hours instead.
    #[arg(long)]
    hours: Option<f64>,
    /// Simulated seconds with faults in each run.
    #[arg(long, default_value_t = 30)]
    time: u64,
    /// What goes wrong. `--scenario list` says what there is; `all` takes them in turn, one for each seed.
    #[arg(long, default_value = "everything")]
    scenario: String,
    /// Write the trace of the runs there.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Add the log of the tiers to the trace, filtered like `info` or `gantry_store=debug`.
    #[arg(long)]
    log: Option<String>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Kinds of faults that do not happen, with commas in between; as a failed run prints them.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Producers, if not as many as the scenario has.
    #[arg(long)]
    producers: Option<usize>,
    /// Consumers of each group, if not as many as the scenario has.
    #[arg(long)]
    consumers: Option<usize>,
    /// Look for a run of a failing seed that fails in the same way with fewer clients, in less time and with fewer kinds of
    /// faults.
    #[arg(long)]
    shrink: bool,
    /// Break the disks on purpose: `sync-data` or `sync-dir` does nothing. The checker must notice.
    #[arg(long)]
    lie: Option<String>,
    /// The mutant to run, in a program that `gantry-mutants` has built.
    #[arg(long, hide = true)]
    mutant: Option<String>,
    /// Run the seed in this process and write the trace to standard output.
    #[arg(long, hide = true)]
    here: bool,
}

impl Args {
    /// True: run one seed in this process.
    pub fn here(&self) -> bool {
        self.here
    }

    /// The first seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Runs one seed in this process. The trace and then the verdict go to standard output.
pub fn run_here(args: &Args) -> anyhow::Result<()> {
    let scenario = scenario::named(&args.scenario).context("there is no such scenario")?;
    let lies = match args.lie.as_deref() {
        None => DiskLies::default(),
        Some("sync-data") => DiskLies { sync_data: true, ..DiskLies::default() },
        Some("sync-dir") => DiskLies { sync_dir: true, ..DiskLies::default() },
        Some(other) => bail!("disks cannot lie about {other:?}: choose sync-data or sync-dir"),
    };
    let trace = Trace::new(Box::new(BufWriter::with_capacity(1 << 16, io::stdout())));
    if let Some(filter) = &args.log {
        crate::trace::add_log(&trace, filter)?;
    }
    let kinds =
        args.without.iter().map(|name| Fault::named(name).with_context(|| format!("no fault is called {name}")));
    let mut scenario = scenario.drawn(args.seed).without(&kinds.collect::<anyhow::Result<Vec<Fault>>>()?);
    scenario.shape.producers = args.producers.unwrap_or(scenario.shape.producers);
    scenario.shape.consumers = args.consumers.unwrap_or(scenario.shape.consumers);
    let plan = Plan { seed: args.seed, scenario, time: Duration::from_secs(args.time), lies };
    let running = trace.clone();
    // A thread of its own: what the log drew from the system's randomness stays with this one, so that a run with a log is
    // the same as one without.
    let simulation =
        std::thread::Builder::new().name("simulation".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            outside::close(plan.seed);
            crate::run::run(&plan, running)
        })?;
    let ran = simulation.join();
    trace.flush();
    let Ok(Verdict { violations, vacuous, summary }) = ran else { bail!("the simulation panicked") };
    let mut out = io::stdout().lock();
    for violation in violations {
        match violation.known {
            None => writeln!(out, "{MARK}violated {violation}")?,
            Some(why) => writeln!(out, "{MARK}known {violation} [{why}]")?,
        }
    }
    if let Some(why) = vacuous {
        writeln!(out, "{MARK}vacuous {why}")?;
    }
    writeln!(out, "{MARK}done {summary}")?;
    Ok(out.flush()?)
}

/// What a process said of its run.
#[derive(Debug, Default)]
struct Told {
    seed: u64,
    scenario: String,
    violations: Vec<String>,
    /// Violations of what the product is known not to hold.
    known: Vec<String>,
    vacuous: Option<String>,
    summary: Option<String>,
    /// The trace, or its end.
    lines: VecDeque<String>,
    errors: String,
}

/// Runs all seeds. True: all of them were fine.
pub fn run_all(args: &Args) -> anyhow::Result<bool> {
    if args.scenario == "list" {
        let lines = scenario::all().into_iter().map(|scenario| format!("{:<12} {}\n", scenario.name, scenario.about));
        say(&lines.collect::<String>())?;
        return Ok(true);
    }
    let scenarios: Vec<String> = match args.scenario.as_str() {
        "all" => scenario::all().into_iter().map(|scenario| scenario.name.to_owned()).collect(),
        name => vec![scenario::named(name).context("there is no such scenario: try --scenario list")?.name.to_owned()],
    };
    let mut trace =
        args.trace.as_ref().map(File::create).transpose().context("cannot write the trace")?.map(BufWriter::new);
    let end = args.hours.map(|hours| tokio::time::Instant::now() + Duration::from_secs_f64(hours * 3600.0));
    let next = AtomicU64::new(args.seed);
    let take = || {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        let more = match end {
            Some(end) => tokio::time::Instant::now() < end,
            None => seed - args.seed < args.seeds,
        };
        more.then_some(seed)
    };
    let run_one = |seed: u64| {
        let scenario = &scenarios[(seed % scenarios.len() as u64) as usize];
        listen(seed, scenario, start(args, seed, scenario)?, args.trace.is_some())
    };
    let (sender, runs) = std::sync::mpsc::sync_channel(1);
    let (mut ran, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            let (sender, take, run_one) = (sender.clone(), &take, &run_one);
            scope.spawn(move || {
                while let Some(seed) = take() {
                    if sender.send(run_one(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for told in runs {
            let told: Told = told?;
            if let Some(trace) = &mut trace {
                told.lines.iter().try_for_each(|line| writeln!(trace, "{line}"))?;
            }
            ran += 1;
            failed += u64::from(!report(args, &told)?);
        }
        anyhow::Ok(())
    })?;
    say(&format!("{ran} runs, {failed} failed\n"))?;
    Ok(failed == 0)
}

/// What determines a run.
fn determining(args: &Args, seed: u64, scenario: &str) -> Vec<String> {
    let Args { time, without, lie, mutant, producers, consumers, .. } = args;
    let mut flags: Vec<String> =
        ["--seed", &seed.to_string(), "--scenario", scenario, "--time", &time.to_string()].map(str::to_owned).into();
    let without = (!without.is_empty()).then(|| without.join(","));
    let (producers, consumers) = (producers.map(|count| count.to_string()), consumers.map(|count| count.to_string()));
    let some = [
        ("--without", &without),
        ("--producers", &producers),
        ("--consumers", &consumers),
        ("--lie", lie),
        ("--mutant", mutant),
    ];
    for (flag, value) in some {
        flags.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
    }
    flags
}

/// The command that repeats a run exactly: the profile decides how it is compiled, and what the compiler makes of the code
/// decides what hashes of addresses come to.
fn again(args: &Args, seed: u64, scenario: &str) -> String {
    let built = std::env::current_exe().ok();
    let program = match (&args.mutant, &built) {
        // It is in no program of cargo's.
        (Some(_), Some(built)) => built.display().to_string(),
        _ => {
            // The folder in which cargo put the program is named after the profile.
            let folder = built.as_deref().and_then(|path| path.parent()?.file_name()?.to_str());
            let profile =
                folder.filter(|name| *name != "debug").map_or(String::new(), |name| format!("--profile {name} "));
            format!("cargo run {profile}-p gantry-simulation --bin gantry-sim --")
        }
    };
    format!("{program} {} --trace trace.txt", determining(args, seed, scenario).join(" "))
}

/// A smaller run of the seed that breaks the same promise: with fewer clients, in less time, with fewer kinds of faults. Each
/// is tried in turn, and stays if it is not needed.
fn shrink(args: &Args, told: &Told) -> anyhow::Result<Args> {
    let way = |told: &Told| -> Option<String> { Some(told.violations.first()?.split(':').next()?.to_owned()) };
    let scenario = scenario::named(&told.scenario).context("there is no such scenario")?.drawn(told.seed);
    let kinds: BTreeSet<String> = scenario.faults.iter().map(|(fault, _)| format!("{fault:?}")).collect();
    let mut smaller = args.clone();
    let attempt = |smaller: &mut Args, tried: Args| -> anyhow::Result<bool> {
        let again = listen(told.seed, &told.scenario, start(&tried, told.seed, &told.scenario)?, false)?;
        let same = way(&again) == way(told);
        if same {
            *smaller = tried;
        }
        Ok(same)
    };
    let one = Args { producers: Some(1), ..smaller.clone() };
    attempt(&mut smaller, one)?;
    let one = Args { consumers: Some(1), ..smaller.clone() };
    attempt(&mut smaller, one)?;
    while smaller.time > 2 {
        let half = Args { time: smaller.time / 2, ..smaller.clone() };
        if !attempt(&mut smaller, half)? {
            break;
        }
    }
    for kind in kinds {
        let fewer = Args { without: [&smaller.without[..], &[kind]].concat(), ..smaller.clone() };
        attempt(&mut smaller, fewer)?;
    }
    Ok(smaller)
}

fn start(args: &Args, seed: u64, scenario: &str) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    // The environment is on the stack, and its size moves what lies below.
    command.env_clear();
    if let Some(mutant) = &args.mutant {
        command.env(crate::mutants::CHOSEN, mutant);
    }
    command.arg("--here").args(determining(args, seed, scenario));
    if let Some(filter) = &args.log {
        command.args(["--log", filter]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot start a process for the run")
}

fn listen(seed: u64, scenario: &str, mut child: Child, keep_all: bool) -> anyhow::Result<Told> {
    let mut told = Told { seed, scenario: scenario.to_owned(), ..Told::default() };
    let out = child.stdout.take().context("the process has no output")?;
    for line in BufReader::new(out).lines() {
        let line = line?;
        match line.strip_prefix(MARK) {
            None => {
                if told.lines.len() == LINES_SHOWN && !keep_all {
                    told.lines.pop_front();
                }
                told.lines.push_back(line);
            }
            Some(verdict) => match verdict.split_once(' ') {
                Some(("violated", what)) => told.violations.push(what.to_owned()),
                Some(("known", what)) => told.known.push(what.to_owned()),
                Some(("vacuous", why)) => told.vacuous = Some(why.to_owned()),
                _ => told.summary = Some(verdict.trim_start_matches("done ").to_owned()),
            },
        }
    }
    if let Some(mut errors) = child.stderr.take() {
        io::Read::read_to_string(&mut errors, &mut told.errors)?;
    }
    child.wait()?;
    Ok(told)
}

/// True: the run was fine.
fn report(args: &Args, told: &Told) -> anyhow::Result<bool> {
    let (seed, scenario) = (told.seed, &told.scenario);
    let fine = told.violations.is_empty() && told.vacuous.is_none() && told.summary.is_some();
    let summary = told.summary.as_deref().unwrap_or("the process died");
    let mut text = format!("seed {seed} {scenario}: {} {summary}\n", if fine { "ok" } else { "FAILED" });
    for known in &told.known {
        text += &format!("  known failure: {known}\n");
    }
    if !fine {
        if told.summary.is_none() {
            text += &format!("{}\n", told.errors);
        }
        for line in told.lines.iter().skip(told.lines.len().saturating_sub(LINES_SHOWN)) {
            text += &format!("    {line}\n");
        }
        for violation in &told.violations {
            text += &format!("  violated {violation}\n");
        }
        if let Some(why) = &told.vacuous {
            text += &format!("  proves nothing: {why}\n");
        }
        text += &format!("  again, with the whole trace: {}\n", again(args, seed, scenario));
        if args.shrink && !told.violations.is_empty() {
            let smaller = shrink(args, told)?;
            text += &format!("  a smaller run that breaks the same promise: {}\n", again(&smaller, seed, scenario));
        }
    }
    say(&text)?;
    Ok(fine)
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
