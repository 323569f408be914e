//! Holds the compiled `apache.rocketmq.v2` to the wire table: any difference in name, number, type, label, oneof or
//! streaming kind, in either direction, is a failure.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};

const PACKAGE: &str = "apache.rocketmq.v2";

#[test]
fn compiled_descriptors_equal_the_wire_table() {
    let table: Value = serde_json::from_str(include_str!("data/rocketmq-v2.json")).unwrap();
    let compiled = describe();
    for kind in ["enums", "messages", "services"] {
        let (want, have) = (table[kind].as_object().unwrap(), compiled[kind].as_object().unwrap());
        for (name, value) in want {
            assert_eq!(have.get(name), Some(value), "{kind}: {name} differs from the table");
        }
        let extra: Vec<_> = have.keys().filter(|name| !want.contains_key(*name)).collect();
        assert!(extra.is_empty(), "{kind} that are not in the table: {extra:?}");
        assert!(want.len() > 1, "the table lost its {kind}");
    }
}

/// The compiled package in the table's shape.
fn describe() -> Value {
    let set: FileDescriptorSet =
        prost::Message::decode(gantry_proto::wire::DESCRIPTORS).expect("the build wrote a descriptor set");
    let (mut enums, mut messages, mut services) = (Map::new(), Map::new(), Map::new());
    for file in set.file.iter().filter(|file| file.package() == PACKAGE) {
        for declared in &file.enum_type {
            enums.insert(format!("{PACKAGE}.{}", declared.name()), describe_enum(declared));
        }
        for declared in &file.message_type {
            describe_message(PACKAGE, declared, &mut messages, &mut enums);
        }
        for declared in &file.service {
            let methods: Map<String, Value> = (declared.method.iter())
                .map(|method| {
                    let value = json!({
                        "request": method.input_type().trim_start_matches('.'),
                        "response": method.output_type().trim_start_matches('.'),
                        "client_streaming": method.client_streaming(),
                        "server_streaming": method.server_streaming(),
                    });
                    (method.name().to_owned(), value)
                })
                .collect();
            services.insert(format!("{PACKAGE}.{}", declared.name()), Value::Object(methods));
        }
    }
    json!({ "enums": enums, "messages": messages, "services": services })
}

fn describe_enum(declared: &EnumDescriptorProto) -> Value {
    Value::Object(declared.value.iter().map(|value| (value.name().to_owned(), json!(value.number()))).collect())
}

fn describe_message(
    scope: &str,
    declared: &DescriptorProto,
    out: &mut Map<String, Value>,
    enums: &mut Map<String, Value>,
) {
    let full_name = format!("{scope}.{}", declared.name());
    let mut fields = Map::new();
    for field in &declared.field {
        let mut value = Map::new();
        value.insert("number".into(), json!(field.number()));
        value.insert("type".into(), json!(type_name(field.r#type(), field.type_name())));
        if field.label() == Label::Repeated {
            value.insert("repeated".into(), json!(true));
        }
        if field.proto3_optional() {
            value.insert("optional".into(), json!(true));
        } else if let Some(index) = field.oneof_index {
            value.insert("oneof".into(), json!(declared.oneof_decl[index as usize].name()));
        }
        fields.insert(field.name().to_owned(), Value::Object(value));
    }
    if declared.options.as_ref().is_some_and(|options| options.map_entry()) {
        fields.insert("(map_entry)".into(), json!(true));
    }
    out.insert(full_name.clone(), Value::Object(fields));
    for nested in &declared.nested_type {
        describe_message(&full_name, nested, out, enums);
    }
    for nested in &declared.enum_type {
        enums.insert(format!("{full_name}.{}", nested.name()), describe_enum(nested));
    }
}

fn type_name(kind: Type, name: &str) -> String {
    match kind {
        Type::Message | Type::Enum => name.trim_start_matches('.').to_owned(),
        Type::String => "string".into(),
        Type::Bytes => "bytes".into(),
        Type::Bool => "bool".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Uint32 => "uint32".into(),
        Type::Uint64 => "uint64".into(),
        Type::Float => "float".into(),
        Type::Double => "double".into(),
        other => format!("{other:?}"),
    }
}
