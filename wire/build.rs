//! Compiles the protobuf files in pure Rust: a fresh machine has no protoc.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// `google.protobuf.FieldDescriptorProto.Type`.
const TYPE_STRING: i32 = 9;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;
/// `google.protobuf.FieldDescriptorProto.Label`.
const LABEL_REPEATED: i32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["lockstep/v1/session.proto"], ["proto"])?;
    let shapes = shapes(&descriptors)?;
    #[allow(clippy::disallowed_methods)] // cargo tells a build script by the environment where to write
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("shapes.rs"), shapes)?;
    // Sorted maps: equal messages have equal bytes.
    tonic_prost_build::configure()
        .bytes(".lockstep.v1")
        .btree_map(".lockstep.v1")
        .codec_path("crate::codec::SessionCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Which fields of which message take memory beyond the message itself: what `src/budget.rs` counts. Generated, so that
/// no field is forgotten.
fn shapes(descriptors: &prost_types::FileDescriptorSet) -> Result<String, Box<dyn std::error::Error>> {
    let mut messages = BTreeMap::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            let name = format!(".{}.{}", file.package(), message.name());
            messages.insert(name.clone(), (message, format!("size_of::<crate::v1::{}>()", message.name())));
            for entry in &message.nested_type {
                // The only nested messages are the entries of maps.
                if !entry.options.as_ref().is_some_and(|options| options.map_entry()) {
                    return Err(format!("{} in {name}: messages stand at the top level", entry.name()).into());
                }
                messages.insert(format!("{name}.{}", entry.name()), (entry, "MAP_ENTRY".to_owned()));
            }
        }
    }
    let number = |name: &str| messages.keys().position(|known| known == name);
    let mut text = "pub(crate) static SHAPES: &[Shape] = &[\n".to_owned();
    for (name, (message, bytes)) in &messages {
        writeln!(text, "    // {name}\n    Shape {{ bytes: {bytes}, fields: &[")?;
        for field in &message.field {
            let kind = match field.r#type {
                Some(TYPE_MESSAGE) => {
                    let inner = number(field.type_name()).ok_or("a message of another file")?;
                    format!("Kind::Message({inner})")
                }
                Some(TYPE_STRING | TYPE_BYTES) => "Kind::Text".to_owned(),
                _ if field.label == Some(LABEL_REPEATED) => {
                    return Err(format!(
                        "{} in {name}: `budget` must count lists of numbers first",
                        field.name()
                    )
                    .into());
                }
                _ => continue,
            };
            writeln!(text, "        ({}, {kind}),", field.number())?;
        }
        text.push_str("    ] },\n");
    }
    text.push_str("];\n");
    for (constant, name) in
        [("AGENT_MESSAGE", ".lockstep.v1.AgentMessage"), ("HUB_MESSAGE", ".lockstep.v1.HubMessage")]
    {
        let place = number(name).ok_or("a message is missing")?;
        writeln!(text, "pub(crate) const {constant}: usize = {place};")?;
    }
    Ok(text)
}
