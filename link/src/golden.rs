//! What peers of version 1 said, byte by byte, in `tests/fixtures/v1/`: one file for each kind of message. This version must
//! read every file as what it meant, and say the same in the same bytes. The files are never changed and never removed:
//! what a later version says otherwise gets a folder of its own.
//!
//! `cargo test -p gantry-link --lib golden -- --ignored` writes the files of kinds that have none yet.

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
    /// What it means.
    value: String,
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
    Golden { name: name.into(), bytes: message.encode_to_vec(), value, read: Box::new(decode) }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn file(golden: &Golden) -> PathBuf {
    folder().join(format!("{}.bin", golden.name))
}

fn all() -> Vec<Golden> {
    exchange()
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
        let path = file(&golden);
        let recorded = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!((golden.read)(&recorded), golden.value, "{} is understood otherwise", golden.name);
        assert_eq!(golden.bytes, recorded, "{} is said otherwise", golden.name);
        assert!(opened.insert(path), "{} is there twice", golden.name);
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let is_message = path.extension().is_some_and(|extension| extension == "bin");
        assert!(!is_message || opened.contains(&path), "nobody opens {}", path.display());
    }
}

#[test]
fn every_kind_of_call_and_answer_is_recorded() {
    let names: BTreeSet<String> = all().into_iter().map(|golden| golden.name).collect();
    for (message, prefix) in [("gantry.store.v1.Call", "store.call"), ("gantry.store.v1.Reply", "store.reply")] {
        let kinds = kinds(message);
        assert!(kinds.len() > 5, "{message}: {kinds:?}");
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
        let path = file(&golden);
        if !path.exists() {
            std::fs::write(path, golden.bytes).unwrap();
        }
    }
}
