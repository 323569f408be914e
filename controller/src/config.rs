use std::path::PathBuf;

/// What a controller must be told.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Its data folder. Made when missing.
    pub dir: PathBuf,
    /// A journal longer than this is replaced by a snapshot: it bounds the time that a start takes.
    pub journal_bytes_max: u64,
}

/// About 100 000 commands, replayed in well under a second.
const JOURNAL_BYTES_MAX: u64 = 4 << 20;

impl ControllerConfig {
    /// Defaults, in this folder.
    pub fn new(dir: impl Into<PathBuf>) -> ControllerConfig {
        ControllerConfig { dir: dir.into(), journal_bytes_max: JOURNAL_BYTES_MAX }
    }
}
