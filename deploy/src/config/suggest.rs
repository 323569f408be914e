//! "Did you mean".

/// Less similar than this is a guess that confuses more than it helps.
const SIMILARITY_MIN: f64 = 0.75;

/// The known name that the mistyped one is most likely meant to be.
pub(super) fn suggest<'a>(mistyped: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known.map(|name| (similarity(mistyped, name), name));
    let best = rated.filter(|(rating, _)| *rating >= SIMILARITY_MIN).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map(|(_, name)| name)
}

/// 0 to 1. A right name in the wrong section is more similar than its spelling says.
fn similarity(mistyped: &str, name: &str) -> f64 {
    let spelling = strsim::jaro_winkler(mistyped, name);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    if last(mistyped) == last(name) { spelling.max(0.9) } else { spelling }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["store.flush", "store.retention", "listen.address", "log.level"];

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        for (mistyped, meant) in [
            ("store.flsh", "store.flush"),
            ("stor.flush", "store.flush"),
            ("listen.adress", "listen.address"),
            ("flush", "store.flush"),
            ("server.level", "log.level"),
        ] {
            assert_eq!(suggest(mistyped, KNOWN.into_iter()), Some(meant));
        }
    }

    #[test]
    fn nothing_is_suggested_for_something_else() {
        assert_eq!(suggest("zookeeper.connect", KNOWN.into_iter()), None);
    }
}
