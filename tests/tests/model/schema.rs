//! `tests/model/schema.json` is what a real API server says of its types. With `LOCKSTEP_UPDATE_SCHEMA=1` it is written anew.

use anyhow::{Result, ensure};
use lockstep_engine::GroupKind;
use lockstep_engine::catalogue::{ValueType, is_never_synced, value_type};
use lockstep_tests::model::generate::{SERVED, discovery_path, render, schema};
use lockstep_tests::testbed::Testbed;
use serde_json::Value;

/// The schema is of this version; another server says something else.
const VERSION: (u32, u32) = (1, 20);

#[tokio::test]
async fn the_schema_is_that_of_the_api_server() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    if testbed.version()? != VERSION {
        println!("unverified: the committed schema is of {VERSION:?}");
        return Ok(());
    }
    let [a, _, _] = testbed.three()?;
    let openapi: Value = serde_json::from_str(&a.raw("/openapi/v2").await?)?;
    let mut discovery = Vec::new();
    for (group, version) in SERVED {
        discovery.push(serde_json::from_str(&a.raw(&discovery_path(group, version)).await?)?);
    }
    let text = render(&schema(&openapi, &discovery));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/model/schema.json");
    if std::env::var("LOCKSTEP_UPDATE_SCHEMA").is_ok_and(|value| value == "1") {
        std::fs::write(path, &text)?;
    }
    ensure!(
        std::fs::read_to_string(path)? == text,
        "run once with LOCKSTEP_UPDATE_SCHEMA=1 and commit {path}"
    );
    Ok(())
}

/// Where typed values lie in objects of the schema, by group and kind; names of members only.
struct Typed<'a> {
    types: &'a Value,
    found: Vec<(Vec<String>, ValueType)>,
}

impl Typed<'_> {
    fn walk(&mut self, ty: &Value, path: &mut Vec<String>, names: &mut Vec<String>) {
        match ty {
            Value::String(text) => match text.strip_prefix('#') {
                Some("meta.v1.Time") => self.found.push((path.clone(), ValueType::Time)),
                Some("meta.v1.MicroTime") => {}
                Some(name) => self.named(name, path, names),
                None if text == "qty" => self.found.push((path.clone(), ValueType::Quantity)),
                None if text == "bytes" => self.found.push((path.clone(), ValueType::Bytes)),
                None => self.found.push((path.clone(), ValueType::Exact)),
            },
            Value::Object(members) => {
                if let Some(item) = members.get("list") {
                    self.walk(item, path, names);
                } else if let Some(item) = members.get("map") {
                    path.push("any".to_owned());
                    self.walk(item, path, names);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn named(&mut self, name: &str, path: &mut Vec<String>, names: &mut Vec<String>) {
        // Schemas of definitions hold schemas.
        if names.iter().any(|known| known == name) {
            return;
        }
        names.push(name.to_owned());
        match &self.types[name] {
            Value::Object(members) if members.contains_key("fields") => {
                for (field, ty) in members["fields"].as_object().into_iter().flatten() {
                    path.push(field.clone());
                    self.walk(ty, path, names);
                    path.pop();
                }
            }
            ty => self.walk(&ty.clone(), path, names),
        }
        names.pop();
    }
}

#[test]
fn values_are_typed_as_the_schema_says() -> Result<()> {
    let schema: Value = serde_json::from_str(include_str!("../../model/schema.json"))?;
    let mut counts = [0, 0, 0];
    for group in schema["groups"].as_array().into_iter().flatten() {
        for resource in group["resources"].as_array().into_iter().flatten() {
            let (Some(group), Some(kind), Some(ty)) =
                (group["group"].as_str(), resource["kind"].as_str(), resource["type"].as_str())
            else {
                continue;
            };
            let gk = GroupKind::new(group, kind);
            if is_never_synced(&gk) {
                continue;
            }
            let mut typed = Typed { types: &schema["types"], found: Vec::new() };
            typed.named(ty, &mut Vec::new(), &mut Vec::new());
            for (path, wanted) in typed.found {
                // Conditions and the like are never asked for.
                let is_time = wanted == ValueType::Time;
                if is_time
                    && (path.iter().any(|name| name == "status")
                        || path.iter().any(|name| name == "managedFields"))
                {
                    continue;
                }
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                ensure!(value_type(&gk, &names) == wanted, "{gk} {path:?} is {wanted:?}");
                counts[usize::from(wanted == ValueType::Quantity)
                    + 2 * usize::from(wanted == ValueType::Bytes)] += 1;
            }
        }
    }
    ensure!(counts.iter().all(|count| *count > 3), "{counts:?}");
    Ok(())
}
