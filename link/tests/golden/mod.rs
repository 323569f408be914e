//! What peers of version 1 said, byte by byte, in `tests/fixtures/v1/`: one file for each kind of message. This version must
//! read every file as what it meant, and say the same in the same bytes. The files are never changed and never removed:
//! what a later version says otherwise gets a folder of its own.
//!
//! Most kinds are written out as values in the tests; what the others mean is recorded as text beside their bytes. The text
//! names types and fields as the code does: when a name in the code changes it follows, and the bytes stay.
//!
//! `cargo test -p gantry-link --lib golden -- --ignored` writes the files of kinds that have none yet.

use crate::controller::golden::controller;
use crate::store::golden::exchange;
use gantry_proto::wire::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a message means, as people read it.
type Read = dyn Fn(&[u8]) -> String;

/// A message as it travelled.
pub(crate) struct Golden {
    pub(crate) name: String,
    /// What this version says.
    bytes: Vec<u8>,
    /// What it means. `None`: that is recorded, too.
    value: Option<String>,
    /// What this version understands.
    read: Box<Read>,
}

/// `message` is what this version says for a value that people read as `value`; `read` makes the value of a message.
pub(crate) fn golden<M: Message + Default>(
    name: impl Into<String>,
    message: M,
    value: String,
    read: impl Fn(M) -> String + 'static,
) -> Golden {
    let decode = move |bytes: &[u8]| M::decode(bytes).map_or_else(|error| error.to_string(), &read);
    Golden { name: name.into(), bytes: message.encode_to_vec(), value: Some(value), read: Box::new(decode) }
}

/// `message` is what this version says for the value that `read` makes of it.
pub(crate) fn recorded<M: Message + Default>(name: String, message: M, read: impl Fn(M) -> String + 'static) -> Golden {
    let decode = move |bytes: &[u8]| M::decode(bytes).map_or_else(|error| error.to_string(), &read);
    Golden { name, bytes: message.encode_to_vec(), value: None, read: Box::new(decode) }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn file(golden: &Golden, ending: &str) -> PathBuf {
    folder().join(format!("{}.{ending}", golden.name))
}

fn all() -> Vec<Golden> {
    exchange().into_iter().chain(controller()).collect()
}

/// The kinds that stand in a oneof of a message, by their names in the protocol.
fn kinds(message: &str) -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let (package, name) = message.rsplit_once('.').unwrap();
    let mut files = set.file.iter().filter(|file| file.package() == package);
    let found = files.find_map(|file| file.message_type.iter().find(|message| message.name() == name)).unwrap();
    let in_oneof = |field: &&prost_types::FieldDescriptorProto| field.oneof_index.is_some() && !field.proto3_optional();
    found.field.iter().filter(in_oneof).map(|field| field.name().to_owned()).collect()
}

#[test]
fn what_peers_of_version_1_said_is_understood_and_said_in_the_same_bytes() {
    let mut opened = BTreeSet::new();
    for golden in all() {
        let path = file(&golden, "bin");
        let recorded = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let meant = golden.value.unwrap_or_else(|| {
            let path = path.with_extension("txt");
            let meant = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            opened.insert(path);
            meant
        });
        assert_eq!(without_later(&(golden.read)(&recorded), &meant), meant, "{} is understood otherwise", golden.name);
        assert_eq!(golden.bytes, recorded, "{} is said otherwise", golden.name);
        assert!(opened.insert(path), "{} is there twice", golden.name);
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let is_message = path.extension().is_some_and(|extension| extension == "bin" || extension == "txt");
        assert!(!is_message || opened.contains(&path), "nobody opens {}", path.display());
    }
}

/// What is read now, without fields that came later: who did not know them said nothing of them.
fn without_later(read: &str, meant: &str) -> String {
    let mut recorded = meant.lines().peekable();
    let mut kept = String::new();
    for line in read.lines() {
        let is_recorded = recorded.next_if(|next| *next == line).is_some();
        if is_recorded || !line.ends_with(": None,") {
            kept += line;
            kept += "\n";
        }
    }
    if meant.ends_with('\n') { kept } else { kept.trim_end().to_owned() }
}

#[test]
fn every_kind_of_call_and_answer_is_recorded() {
    let names: BTreeSet<String> = all().into_iter().map(|golden| golden.name).collect();
    let messages = [
        ("gantry.store.v1.Call", "store.call"),
        ("gantry.store.v1.Reply", "store.reply"),
        ("gantry.controller.v1.MetadataCommand", "controller.command"),
        ("gantry.controller.v1.MetadataOutcome", "controller.outcome"),
        ("gantry.controller.v1.MetadataRefusal", "controller.refusal"),
        ("gantry.controller.v1.MetadataChange", "controller.change"),
        ("gantry.controller.v1.MembershipFailure", "controller.membership_failure"),
        ("gantry.controller.v1.ChangeControllersRequest", "controller.change_controllers"),
        ("gantry.controller.v1.ConsensusReply", "controller.consensus_reply"),
    ];
    for (message, prefix) in messages {
        let kinds = kinds(message);
        assert!(kinds.len() > 1, "{message}: {kinds:?}");
        for kind in kinds {
            assert!(names.contains(&format!("{prefix}.{kind}")), "no {prefix}.{kind}");
        }
    }
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let failure =
        set.file.iter().flat_map(|file| &file.message_type).find(|message| message.name() == "Failure").unwrap();
    assert!(failure.field.iter().any(|field| field.r#type() == Type::Enum));
    for kind in failure.enum_type.iter().flat_map(|kinds| &kinds.value).filter(|kind| kind.number() != 0) {
        let name = format!("store.failure.{}", kind.name().to_lowercase());
        assert!(names.contains(&name), "no {name}");
    }
}

#[test]
#[ignore = "writes the files of kinds that have none yet"]
fn record_what_has_no_file_yet() {
    std::fs::create_dir_all(folder()).unwrap();
    for golden in all() {
        let (path, text) = (file(&golden, "bin"), file(&golden, "txt"));
        if !path.exists() {
            if golden.value.is_none() {
                std::fs::write(text, (golden.read)(&golden.bytes)).unwrap();
            }
            std::fs::write(path, golden.bytes).unwrap();
        }
    }
}
