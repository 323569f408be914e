//! What must be absent from the code: the arrows between crates, and who may know what.

use std::fs;
use std::path::{Path, PathBuf};

/// Crate and what it may use of ours.
const ARROWS: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("link", &["gantry-proto"]),
    ("proxy", &["gantry-proto"]),
    ("store", &["gantry-proto"]),
    ("controller", &["gantry-proto"]),
    ("client", &["gantry-proto"]),
    ("bench", &["gantry-proto", "gantry-client"]),
    ("deploy", &["gantry-proto", "gantry-link", "gantry-proxy", "gantry-store", "gantry-controller", "gantry-bench"]),
    ("tests", &[]),
];

/// Folders of sources that stand for the outside world, or test with it.
const EXEMPT: [&str; 2] = ["fake", "tests"];

/// Text that must not occur in the sources of some crates, and why.
const ABSENT: [(&str, &[&str], &str); 6] = [
    ("wire::v2", &["store", "controller", "link", "deploy"], "only the proxy and the bench speak the client protocol"),
    (
        "std::fs",
        &["proto", "link", "proxy", "store", "controller", "client", "bench"],
        "files are reached through the `Files` that was passed",
    ),
    ("tokio::fs", &["proto", "link", "proxy", "store", "controller", "client", "bench", "deploy"], "as above"),
    ("std::process", &["proto", "link", "proxy", "store", "controller"], "no tier starts or ends processes"),
    (
        "tokio::net",
        &["proto", "link", "proxy", "store", "controller", "client", "bench"],
        "sockets are reached through the `Network` that was passed",
    ),
    (
        "spawn_blocking",
        &["proto", "link", "proxy", "store", "controller", "client", "bench"],
        "what blocks goes to the `Workers` that were passed",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() && EXEMPT.iter().any(|name| path.ends_with(name)) {
            continue;
        } else if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("every crate has a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("a manifest names its dependencies");
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let ours = dependencies.lines().filter(|line| line.starts_with("gantry-"));
        for line in ours {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&used), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn tiers_do_not_know_what_is_not_theirs() {
    for (text, crates, why) in ABSENT {
        for name in crates {
            let mut files = Vec::new();
            sources(&root().join(name).join("src"), &mut files);
            assert!(!files.is_empty(), "{name} has sources");
            for file in files {
                let source = fs::read_to_string(&file).expect("a source is text");
                let found = source.lines().position(|line| line.contains(text) && !line.trim_start().starts_with("//"));
                assert_eq!(found.map(|line| line + 1), None, "{} has `{text}`: {why}", file.display());
            }
        }
    }
}
