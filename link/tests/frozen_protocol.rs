//! The protocols between processes as version 1 defines them, in `fixtures/v1/protocol.descriptors`: a set of file descriptors. Later
//! definitions may add to it, and change nothing that is there.
//!
//! `cargo test -p gantry-link --test frozen_protocol -- --ignored` writes the file if there is none.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use gantry_proto::wire::DESCRIPTORS;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

const PACKAGES: [&str; 2] = ["gantry.store.v1", "gantry.controller.v1"];

/// Everything that is defined, by its full name.
#[derive(Clone, Default)]
struct Protocol {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    services: BTreeMap<String, ServiceDescriptorProto>,
}

impl Protocol {
    fn of(set: &FileDescriptorSet) -> Protocol {
        let mut protocol = Protocol::default();
        for file in set.file.iter().filter(|file| PACKAGES.contains(&file.package())) {
            let named = |name: &str| format!("{}.{name}", file.package());
            file.message_type.iter().for_each(|message| protocol.add(named(message.name()), message));
            protocol.enums.extend(file.enum_type.iter().map(|one| (named(one.name()), one.clone())));
            protocol.services.extend(file.service.iter().map(|one| (named(one.name()), one.clone())));
        }
        protocol
    }

    fn add(&mut self, name: String, message: &DescriptorProto) {
        for nested in &message.nested_type {
            self.add(format!("{name}.{}", nested.name()), nested);
        }
        self.enums.extend(message.enum_type.iter().map(|one| (format!("{name}.{}", one.name()), one.clone())));
        self.messages.insert(name, message.clone());
    }
}

/// What of a field travels, or decides how it is read.
fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> (Type, Label, String, Option<String>, bool) {
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let oneof = oneof.map(|index| message.oneof_decl[index as usize].name().to_owned());
    (field.r#type(), field.label(), field.type_name().to_owned(), oneof, field.proto3_optional())
}

/// How `now` would misunderstand what speakers of `then` say, or be misunderstood by them.
fn breakages(then: &Protocol, now: &Protocol) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, then) in &then.messages {
        let Some(now) = now.messages.get(name) else {
            broken.push(format!("{name} is gone"));
            continue;
        };
        for field in &then.field {
            let number = field.number();
            match now.field.iter().find(|field| field.number() == number) {
                Some(found) if shape(now, found) != shape(then, field) => {
                    broken.push(format!(
                        "{name}: field {number} was {:?}, is {:?}",
                        shape(then, field),
                        shape(now, found)
                    ));
                }
                Some(_) => {}
                None if now.reserved_range.iter().any(|range| (range.start()..range.end()).contains(&number)) => {}
                None => broken.push(format!("{name}: field {number} ({}) is gone and not reserved", field.name())),
            }
        }
        for range in &then.reserved_range {
            let used = now.field.iter().find(|field| (range.start()..range.end()).contains(&field.number()));
            broken.extend(used.map(|field| format!("{name}: the number of {} was used before", field.name())));
        }
    }
    for (name, then) in &then.enums {
        let values = now.enums.get(name).map_or(&[][..], |now| &now.value);
        for value in &then.value {
            // By name as well: what a number means must not change.
            if !values.iter().any(|now| (now.number(), now.name()) == (value.number(), value.name())) {
                broken.push(format!("{name}: {} = {} is gone or another one", value.name(), value.number()));
            }
        }
    }
    for (name, then) in &then.services {
        let methods = now.services.get(name).map_or(&[][..], |now| &now.method);
        for method in &then.method {
            if !methods.contains(method) {
                broken.push(format!("{name}: {} is gone or changed", method.name()));
            }
        }
    }
    broken
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/protocol.descriptors")
}

/// As this program defines it, without comments.
fn today() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    set.file.retain(|file| PACKAGES.contains(&file.package()));
    set.file.iter_mut().for_each(|file| file.source_code_info = None);
    set
}

fn frozen() -> FileDescriptorSet {
    FileDescriptorSet::decode(&std::fs::read(path()).unwrap()[..]).unwrap()
}

#[test]
fn nothing_of_version_1_is_changed() {
    let (then, now) = (Protocol::of(&frozen()), Protocol::of(&today()));
    assert!(then.messages.len() > 50 && then.services.len() == 4, "{} messages", then.messages.len());
    assert_eq!(breakages(&then, &now), [""; 0]);
}

#[test]
fn each_change_that_breaks_is_noticed_and_additions_are_not() {
    let then = Protocol::of(&frozen());
    let changed = |name: &str, change: fn(&mut DescriptorProto)| {
        let mut now = then.clone();
        change(now.messages.get_mut(name).unwrap());
        breakages(&then, &now).len()
    };
    let call = "gantry.store.v1.Call";
    assert_eq!(changed(call, |_| {}), 0);
    assert_eq!(changed(call, |call| call.field[0].number = Some(77)), 1, "another number");
    assert_eq!(changed(call, |call| call.field[0].set_type(Type::Fixed64)), 1, "another type");
    assert_eq!(changed(call, |call| call.field[0].set_label(Label::Repeated)), 1, "a list");
    assert_eq!(changed(call, |call| call.field[0].proto3_optional = Some(true)), 1, "optional");
    assert_eq!(changed(call, |call| call.field[2].oneof_index = None), 1, "out of its oneof");
    assert_eq!(changed(call, |call| call.field[2].type_name = Some(".gantry.store.v1.PopCall".to_owned())), 1);
    assert_eq!(changed(call, |call| drop(call.field.remove(0))), 1, "removed");
    let reserve = |call: &mut DescriptorProto| {
        let removed = call.field.remove(0).number();
        let range = prost_types::descriptor_proto::ReservedRange { start: Some(removed), end: Some(removed + 1) };
        call.reserved_range.push(range);
    };
    assert_eq!(changed(call, reserve), 0, "removed, and its number is never used again");
    assert_eq!(changed(call, |call| call.field[0].name = Some("number".to_owned())), 0, "names do not travel");
    let add = |call: &mut DescriptorProto| {
        let field = FieldDescriptorProto { number: Some(900), ..call.field[0].clone() };
        call.field.push(field);
    };
    assert_eq!(changed(call, add), 0, "added");

    let mut now = then.clone();
    now.messages.remove(call);
    assert_eq!(breakages(&then, &now).len(), 1);
    let mut now = then.clone();
    now.enums.get_mut("gantry.store.v1.Failure.Kind").unwrap().value[1].number = Some(900);
    assert_eq!(breakages(&then, &now).len(), 1);
    let mut now = then.clone();
    now.services.get_mut("gantry.store.v1.StoreExchange").unwrap().method[0].client_streaming = Some(false);
    assert_eq!(breakages(&then, &now).len(), 1);
}

#[test]
#[ignore = "writes the file if there is none"]
fn record_the_protocol() {
    if !path().exists() {
        std::fs::write(path(), today().encode_to_vec()).unwrap();
    }
}
