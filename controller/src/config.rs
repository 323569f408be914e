use crate::liveness::LeaseSettings;
use crate::state::Rules;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The address of an only member: nobody connects to it.
pub const STANDALONE: &str = "standalone";

/// What a controller must be told.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Its data folder. Made when missing. It belongs to this member for ever.
    pub dir: PathBuf,
    /// It was there: if it is not any more, that is an error, and nothing is made in its place.
    pub must_exist: bool,
    /// Its number. Never used again for another folder: a member that lost its folder is removed, and joins again with a
    /// new number.
    pub id: u64,
    /// The first members with the addresses at which they reach each other, `host:port`, the same on each of them. Only the
    /// first start of an empty folder looks at it. Empty: this one waits until the others add it.
    pub members: BTreeMap<u64, String>,
    /// How often the leader says that it is there.
    pub heartbeat_interval: Duration,
    /// A member that hears nothing from a leader for this long, and up to as long again at random, wants to lead. Several
    /// times the interval above.
    pub election_timeout: Duration,
    /// Bounds every wait for other members: for an answer, for a leader.
    pub request_timeout: Duration,
    /// Commands between two snapshots, at least. A start replays what came after the last one.
    pub snapshot_commands: usize,
    /// Entries that a follower may be behind and still get entries instead of a snapshot. A leader keeps more for a member
    /// that it cannot reach: openraft does not purge what it is about to send.
    pub log_kept: u64,
    /// Most commands that share an entry of the log, and with it a sync.
    pub batch_len_max: usize,
    /// Leases of stores and proxies.
    pub leases: LeaseSettings,
    /// The newest rules that this member follows, of those that it knows. The members' rules are raised to what all of them
    /// follow.
    pub rules_max: u32,
}

impl ControllerConfig {
    /// Defaults for one of several members.
    pub fn member(dir: impl Into<PathBuf>, id: u64, members: BTreeMap<u64, String>) -> ControllerConfig {
        ControllerConfig {
            dir: dir.into(),
            must_exist: false,
            id,
            members,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(600),
            request_timeout: Duration::from_secs(10),
            snapshot_commands: 10_000,
            log_kept: 500,
            batch_len_max: 256,
            leases: LeaseSettings::default(),
            rules_max: Rules::NEWEST.number(),
        }
    }

    /// Defaults for the only member. Goes with [`NoPeers`](crate::NoPeers).
    pub fn standalone(dir: impl Into<PathBuf>) -> ControllerConfig {
        ControllerConfig {
            // Nobody listens: the consensus only has to be woken now and then. Its one election is begun by hand.
            heartbeat_interval: Duration::from_secs(2),
            election_timeout: Duration::from_secs(6),
            ..ControllerConfig::member(dir, 1, BTreeMap::from([(1, STANDALONE.to_owned())]))
        }
    }
}
