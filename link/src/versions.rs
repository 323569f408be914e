//! The versions of the protocols between processes that this program speaks, and the version that two programs choose.
//!
//! All protocols (`gantry.store.v1`, `gantry.controller.v1`) share one version. It is raised only when their own rules for
//! additions (skip what may be skipped, name what must be understood) do not suffice. A program speaks at least its own
//! version and the one before, so that a cluster is upgraded process by process.

use std::fmt;

/// Versions that a program speaks, the bounds included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VersionRange {
    min: u32,
    max: u32,
}

/// What this program speaks.
pub(crate) const SPOKEN: VersionRange = VersionRange { min: 1, max: 1 };

/// Two programs have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoCommonVersion {
    ours: VersionRange,
    theirs: VersionRange,
}

impl VersionRange {
    /// From the first version on, and not empty.
    pub(crate) fn new(min: u32, max: u32) -> Option<VersionRange> {
        (1 <= min && min <= max).then_some(VersionRange { min, max })
    }

    pub(crate) fn min(self) -> u32 {
        self.min
    }

    pub(crate) fn max(self) -> u32 {
        self.max
    }

    pub(crate) fn contains(self, version: u32) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The highest version that both speak.
    pub(crate) fn common(self, theirs: VersionRange) -> Result<u32, NoCommonVersion> {
        let highest = self.max.min(theirs.max);
        let common = self.contains(highest) && theirs.contains(highest);
        if common { Ok(highest) } else { Err(NoCommonVersion { ours: self, theirs }) }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "version {}", self.min),
            false => write!(f, "versions {} to {}", self.min, self.max),
        }
    }
}

impl NoCommonVersion {
    /// For an operator who runs `us` and `them`.
    pub(crate) fn between(self, us: &str, them: &str) -> String {
        let NoCommonVersion { ours, theirs } = self;
        let older = if ours.max < theirs.min { us } else { them };
        format!("{us} speaks {ours} of the protocol, {them} {theirs}: upgrade {older}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(min: u32, max: u32) -> VersionRange {
        VersionRange::new(min, max).unwrap()
    }

    #[test]
    fn an_operator_hears_both_ranges_and_what_to_upgrade() {
        let none = range(1, 2).common(range(3, 5)).unwrap_err();
        let said = none.between("the store", "the proxy");
        assert_eq!(
            said,
            "the store speaks versions 1 to 2 of the protocol, the proxy versions 3 to 5: upgrade the store"
        );
        let said = range(3, 3).common(range(1, 2)).unwrap_err().between("the store", "the proxy");
        assert!(said.ends_with("upgrade the proxy"), "{said}");
        assert!(VersionRange::new(0, 1).is_none() && VersionRange::new(2, 1).is_none());
    }

    proptest! {
        #[test]
        fn both_sides_choose_the_highest_that_both_speak(a in 1..9u32, b in 0..4u32, c in 1..9u32, d in 0..4u32) {
            let (ours, theirs) = (range(a, a + b), range(c, c + d));
            let shared = (1..20).filter(|version| ours.contains(*version) && theirs.contains(*version)).max();
            prop_assert_eq!(ours.common(theirs).ok(), shared);
            prop_assert_eq!(theirs.common(ours).ok(), shared);
        }
    }
}
