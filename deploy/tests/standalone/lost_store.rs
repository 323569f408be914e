//! The store's folder is lost, is another cluster's, or cannot be written, and the controller's folder beside it is there.

use crate::gantry::{Gantry, output, run};
use crate::last_line;
use std::fs;
use std::path::Path;

fn refused(data: &Path) -> String {
    let flags = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let (code, stderr) = run(&flags);
    assert_eq!(code, Some(1), "{stderr}");
    last_line(&stderr).to_owned()
}

fn verify(data: &Path) -> (Option<i32>, String) {
    let (code, stdout, _) = output(&["inspect", "verify", data.to_str().unwrap()]);
    (code, stdout)
}

#[test]
fn a_lost_store_is_named_and_what_the_line_says_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Gantry::start(data, &[]);
    server.admin("topic create orders --queues 4").unwrap();
    assert_eq!(server.stop("TERM").0, Some(0));
    assert_eq!(verify(data).0, Some(0));

    let (store, saved) = (data.join("store"), data.join("saved"));
    fs::rename(&store, &saved).unwrap();
    for step in ["gone", "empty"] {
        if step == "empty" {
            fs::create_dir(&store).unwrap();
        }
        let line = refused(data);
        for says in ["--group", "gantry admin cluster drain store-1", "gantry admin cluster remove store-1 --force"] {
            assert!(line.contains(says), "{step}: {line}");
        }
        assert!(!store.join("identity").exists(), "{step}: nothing is made");
        let (code, said) = verify(data);
        assert!(code == Some(1) && said.contains("knows store group store-1"), "{step}: {said}");
    }
    // It was found again.
    fs::remove_dir(&store).unwrap();
    fs::rename(&saved, &store).unwrap();
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));

    fs::remove_dir_all(&store).unwrap();
    let server = Gantry::start(data, &["--group", "store-2"]);
    server.admin("cluster drain store-1").unwrap();
    server.admin("cluster remove store-1 --force").unwrap();
    let (described, _) = server.admin("topic describe orders").unwrap();
    let queues = described["queues"].as_array().unwrap();
    assert!(!queues.is_empty() && queues.iter().all(|queue| queue["store_group"] == "store-2"), "{described}");
    assert_eq!(server.stop("TERM").0, Some(0));
    assert_eq!(Gantry::start(data, &["--group", "store-2"]).stop("TERM").0, Some(0));
    let (code, said) = verify(data);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn folders_of_two_clusters_beside_each_other_are_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for data in [dir.path(), other.path()] {
        assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
        assert_eq!(verify(data).0, Some(0));
    }
    let controller = dir.path().join("controller");
    fs::remove_dir_all(&controller).unwrap();
    fs::rename(other.path().join("controller"), &controller).unwrap();
    let (code, said) = verify(dir.path());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 PROBLEM") && said.contains("belongs to cluster"), "{said}");
    assert!(said.contains(&format!("`gantry repair controller {}`", dir.path().display())), "{said}");
    // Each by itself is whole.
    assert_eq!(verify(&controller).0, Some(0));
    assert_eq!(verify(&dir.path().join("store")).0, Some(0));
}

#[test]
fn a_lost_identity_gets_the_name_that_the_controller_beside_it_knows_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (data, text) = (dir.path(), dir.path().to_str().unwrap());
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
    for name in ["identity", "identity.copy"] {
        fs::remove_file(data.join("store").join(name)).unwrap();
    }
    let (code, _, said) = output(&["repair", "identity", text, "--store-group", "store-7", "--yes"]);
    assert!(code == Some(1) && said.contains("calls store-1, not store-7"), "{said}");
    let (code, said, _) = output(&["repair", "identity", text, "--yes"]);
    assert!(code == Some(0) && said.contains("store group store-1"), "{said}");
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
}

#[test]
fn an_identity_that_cannot_be_written_ends_the_server_with_the_file_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
    fs::create_dir(data.join("store/identity.tmp")).unwrap();
    let line = refused(data);
    assert!(line.contains("store/identity") && line.contains("move it away"), "{line}");
    fs::remove_dir(data.join("store/identity.tmp")).unwrap();
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
}

#[test]
fn a_controllers_file_that_is_taken_away_under_a_server_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, folder) = (dir.path(), dir.path().join("controller"));
    let server = Gantry::start(data, &[]);
    fs::rename(folder.join("consensus.redb"), folder.join("aside")).unwrap();
    let (code, log) = server.wait();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("consensus.redb was moved away") && log.contains("put back the one that was there"), "{log}");
    assert!(!folder.join("consensus.redb").exists());
    let line = refused(data);
    assert!(line.contains(&format!("gantry repair controller {}", data.display())), "{line}");
    fs::rename(folder.join("aside"), folder.join("consensus.redb")).unwrap();
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
}

#[test]
fn the_real_folder_is_put_back_after_its_older_copy_has_led() {
    let dir = tempfile::tempdir().unwrap();
    let (data, store) = (dir.path(), dir.path().join("store"));
    let (copy, real) = (data.join("copy"), data.join("real"));
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
    let copied = std::process::Command::new("cp").arg("-a").args([&store, &copy]).status().unwrap();
    assert!(copied.success());
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
    fs::rename(&store, &real).unwrap();
    fs::rename(&copy, &store).unwrap();
    let line = refused(data);
    assert!(line.contains("older copy") && line.contains("gantry repair put-back"), "{line}");
    let led: u32 = line.split("--led ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let (text, led) = (data.to_str().unwrap(), led.to_string());
    let (code, said, _) = output(&["repair", "put-back", text, "--led", &led]);
    assert!(code == Some(0) && said.contains("is not in this folder") && said.contains("--yes"), "{said}");
    refused(data);
    assert_eq!(output(&["repair", "put-back", text, "--led", &led, "--yes"]).0, Some(0));
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
    // And now the real one is to go on.
    fs::rename(&store, &copy).unwrap();
    fs::rename(&real, &store).unwrap();
    let line = refused(data);
    let led = line.split("--led ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(output(&["repair", "put-back", text, "--led", led, "--yes"]).0, Some(0));
    assert_eq!(Gantry::start(data, &[]).stop("TERM").0, Some(0));
}
