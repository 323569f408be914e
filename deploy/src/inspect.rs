//! `gantry inspect`: the files of a data folder as they are, without a server. It opens nothing for writing and takes no
//! lock, so that it can look at a folder that is in use, or that no server opens any more.
//!
//! What is read and judged is the tiers' own matter ([`gantry_store::inspect`]); here it is printed. Records
//! are printed as they are read: memory does not grow with a segment.

mod checkpoint;
mod controller;
mod index;
mod print;
mod segment;
mod small;
mod verify;

pub(crate) use print::instant;
pub(crate) use verify::store_dir;

use crate::env::SystemFiles;
use crate::exit::Failure;
use clap::{Args, Subcommand, ValueEnum};
use gantry_proto::env::Files;
use gantry_store::inspect::InspectError;
use print::Printer;
use std::io;
use std::path::{Path, PathBuf};

/// What to look at.
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(subcommand)]
    what: What,
    /// How to print the result.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The records of a log segment, or of all segments in a folder.
    Segment(segment::SegmentArgs),
    /// The index of a sealed segment.
    Index(index::IndexArgs),
    /// Where recovery begins: the ends of queues, and how far groups are.
    Checkpoint(checkpoint::CheckpointArgs),
    /// The folder of a controller's member: its promises, its log, its snapshot.
    Controller(controller::ControllerArgs),
    /// How far the disk has the log.
    Positions(PathArgs),
    /// Which folder this is, and where it belongs.
    Identity(PathArgs),
    /// A whole folder: each file, and the files against one another.
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Args)]
struct PathArgs {
    /// The file, or the folder that it is in.
    path: PathBuf,
}

/// There is nothing at the path that could be looked at so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongPath(String);

/// Looks and prints.
pub fn run(args: InspectArgs) -> Result<(), Failure> {
    let files = SystemFiles;
    let mut printer = Printer::new(args.output);
    let looked = match args.what {
        What::Segment(args) => segment::run(&files, &args, &mut printer),
        What::Index(args) => index::run(&files, &args, &mut printer),
        What::Checkpoint(args) => checkpoint::run(&files, &args, &mut printer),
        What::Controller(args) => controller::run(&files, &args, &mut printer),
        What::Positions(args) => small::positions(&files, &args.path, &mut printer),
        What::Identity(args) => small::identity(&files, &args.path, &mut printer),
        What::Verify(args) => verify::run(&files, &args, &mut printer),
    };
    match looked.and_then(|whole| printer.finish().map(|()| whole)) {
        // Whoever reads it has seen enough (`gantry inspect … | head`).
        Err(error) if is_broken_pipe(&error) => Ok(()),
        Err(error) if is_wrong_path(&error) => Err(Failure::WronglyAsked(format!("{error:#}"))),
        Err(error) => Err(Failure::Failed(error)),
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::NotWhole),
    }
}

fn is_wrong_path(error: &anyhow::Error) -> bool {
    error.is::<WrongPath>() || error.downcast_ref::<InspectError>().is_some_and(InspectError::is_wrong_path)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The folder that holds the file `name`: `path` itself, the `store` folder in it, or the folder that `path` is in.
fn folder_of(files: &dyn Files, path: &Path, name: &str) -> Result<PathBuf, WrongPath> {
    let holds = |dir: &Path| files.list(dir).is_ok_and(|names| names.iter().any(|entry| entry.name.starts_with(name)));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [path.to_owned(), path.join("store"), parent.to_owned()];
    let named = |dir: &&PathBuf| {
        **dir != *parent || path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
    };
    let found = places.iter().filter(named).find(|dir| holds(dir)).cloned();
    found.ok_or_else(|| WrongPath(format!("there is no file {name} at {}: name a store's folder", path.display())))
}

/// The server that has a folder open, if the system tells: then what is read may move.
fn note_in_use(dir: &Path) {
    if let Some(process) = lock_holder(dir) {
        crate::output::note(&format!(
            "process {process} has {} open: what is being written may look unfinished, and files may come and go",
            dir.display()
        ));
    }
}

/// Read from the system's list of locks: asking for the lock itself could keep a server from starting.
fn lock_holder(dir: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let inodes: Vec<u64> = ["lock", "LOCK"]
        .iter()
        .filter_map(|name| std::fs::metadata(dir.join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (kind, process, file) = (*fields.get(1)?, *fields.get(4)?, *fields.get(5)?);
        let inode: u64 = file.rsplit(':').next()?.parse().ok()?;
        (kind == "FLOCK" && inodes.contains(&inode)).then(|| process.parse().ok()).flatten()
    })
}
