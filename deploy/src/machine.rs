//! What the machine lets this process have.

use std::path::Path;

/// At least so much memory for clients, however small the machine.
const CLIENTS_MEMORY_MIN: usize = 256 << 20;

/// Memory for what clients make a server hold, when nobody says how much: a quarter of what there is.
pub fn memory_for_clients() -> usize {
    let machine = usize::try_from(rustix::system::sysinfo().totalram).unwrap_or(usize::MAX);
    // A container's own, of cgroups version 2 and 1.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().filter_map(|file| number_in(Path::new(file))).min();
    quarter(machine.min(container.unwrap_or(usize::MAX)))
}

/// How many files this process may have open.
pub fn files_max() -> usize {
    let current = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    current.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
}

fn quarter(memory: usize) -> usize {
    (memory / 4).max(CLIENTS_MEMORY_MIN)
}

/// `None`: there is no such file, or it says "max".
fn number_in(file: &Path) -> Option<usize> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_a_quarter_and_never_too_little() {
        assert_eq!(quarter(8 << 30), 2 << 30);
        assert_eq!(quarter(512 << 20), CLIENTS_MEMORY_MIN);
        assert!(memory_for_clients() >= CLIENTS_MEMORY_MIN);
        assert!(files_max() > 0);
    }

    #[test]
    fn a_container_without_a_limit_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.max");
        assert_eq!(number_in(&file), None);
        std::fs::write(&file, "max\n").unwrap();
        assert_eq!(number_in(&file), None);
        std::fs::write(&file, "1073741824\n").unwrap();
        assert_eq!(number_in(&file), Some(1 << 30));
    }
}
