//! What a source serves is what a target serves: every character, nulls, numbers, empties, long keys.

use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use lockstep_cluster::{ApplyPlan, Bytes, Expect, Resource, RestoreExpect, RestorePlan};
use lockstep_tests::cluster::queues;
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::{Bench, absent, applied, present};

/// Characters per object.
const BLOCK: usize = 1_024;
/// Beyond the basic plane: its ends, emoji, and characters that are none.
const SAMPLES: [char; 8] = [
    '\u{10000}',
    '\u{1f600}',
    '\u{1f9e8}',
    '\u{1fffe}',
    '\u{1ffff}',
    '\u{e0001}',
    '\u{10fffe}',
    '\u{10ffff}',
];

fn blocks() -> Vec<Vec<char>> {
    let all: Vec<char> = ('\0'..='\u{ffff}').chain(SAMPLES).collect();
    all.chunks(BLOCK).map(<[char]>::to_vec).collect()
}

/// Alone, between blanks, at the start, at the end, and several in a row.
fn forms(letter: char) -> [String; 5] {
    [
        letter.to_string(),
        format!("a {letter} b"),
        format!("{letter} b"),
        format!("a {letter}"),
        format!("a {letter}{letter} {letter}b"),
    ]
}

fn config_map(block: &[char]) -> Value {
    let mut data = Map::new();
    let mut story = String::new();
    for letter in block {
        for (n, form) in forms(*letter).into_iter().enumerate() {
            story.push_str(&form);
            data.insert(format!("k{:x}-{n}", u32::from(*letter)), form.into());
        }
    }
    json!({"metadata": {"annotations": {"example.com/story": story}}, "data": data})
}

fn queue(block: &[char]) -> Value {
    let texts: Vec<String> = block.iter().flat_map(|letter| forms(*letter)).collect();
    let keys: Map<String, Value> =
        block.iter().map(|letter| (format!("a {letter} b{letter}"), json!({}))).collect();
    json!({"spec": {"keys": keys, "values": texts}})
}

/// Kind and group of a test's own, of any content.
struct Queues {
    resource: Resource,
}

impl Queues {
    async fn install(bench: &Bench) -> Result<Self> {
        let group = format!("{}.example.com", unique_name("bytes")?);
        bench.cluster.install_crd(&queues(&group)).await?;
        let resource = Resource {
            group: group.into(),
            version: "v1".into(),
            kind: "Queue".into(),
            plural: "queues".into(),
            namespaced: true,
        };
        Ok(Self { resource })
    }

    async fn remove(&self, bench: &Bench) -> Result<()> {
        let name = format!("queues.{}", self.resource.group);
        bench.cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name).await?;
        Ok(())
    }
}

/// Makes the source; what its server serves of it.
async fn source(bench: &Bench, resource: &Resource, name: &str, body: &Value) -> Result<Value> {
    let mut body = body.clone();
    body["apiVersion"] = resource.api_version().into();
    body["kind"] = resource.kind.as_ref().into();
    body["metadata"]["name"] = name.into();
    body["metadata"]["namespace"] = bench.namespace.name().into();
    let api =
        bench.cluster.api(&resource.api_version(), &resource.kind, Some(bench.namespace.name())).await?;
    let made = eventually(PATIENCE, "a kind that is served", async || {
        Ok(api.create(&PostParams::default(), &serde_json::from_value(body.clone())?).await?)
    });
    made.await?;
    live(bench, resource, name).await
}

async fn live(bench: &Bench, resource: &Resource, name: &str) -> Result<Value> {
    let read = bench.writer.read(resource, bench.namespace.name(), name).await?;
    Ok(serde_json::from_slice(&read.context("it is there")?.body)?)
}

/// The body of a copy of what is served.
fn copy(bench: &Bench, resource: &Resource, name: &str, served: &Value) -> Bytes {
    let mut body = served.clone();
    body["metadata"] = json!({"name": name, "namespace": bench.namespace.name()});
    if let Some(annotations) = served["metadata"].get("annotations") {
        body["metadata"]["annotations"] = annotations.clone();
    }
    body["kind"] = resource.kind.as_ref().into();
    Bytes::from(body.to_string())
}

fn plan(bench: &Bench, resource: &Resource, name: &str, body: Bytes, expect: Expect) -> Result<ApplyPlan> {
    let like = bench.config_map(json!({}), expect)?;
    Ok(ApplyPlan { resource: resource.clone(), name: name.into(), body, ..like })
}

/// The parts that hold bytes, and where they first differ.
fn same(wanted: &Value, got: &Value, what: &str) -> Result<()> {
    for path in ["/data", "/spec", "/metadata/annotations/example.com~1story"] {
        let (wanted, got) = (wanted.pointer(path), got.pointer(path));
        if let (Some(Value::Object(wanted)), Some(Value::Object(got))) = (wanted, got) {
            for (name, value) in wanted {
                ensure!(
                    got.get(name) == Some(value),
                    "{what}: {name:?}: {value:?}, and the copy {:?}",
                    got.get(name)
                );
            }
        }
        ensure!(wanted == got, "{what}: {path} differs");
    }
    Ok(())
}

async fn arrives(bench: &Bench, resource: &Resource, n: usize, body: &Value) -> Result<()> {
    let served = source(bench, resource, &format!("source-{n}"), body).await?;
    same(body, &served, "the source")?;
    let name = format!("copy-{n}");
    let body = copy(bench, resource, &name, &served);
    let report = bench.writer.apply(&plan(bench, resource, &name, body, absent("n"))?).await;
    applied(report.outcome)?;
    same(&served, &live(bench, resource, &name).await?, &name)?;
    let restored = format!("restored-{n}");
    let restore = RestorePlan {
        resource: resource.clone(),
        namespace: bench.namespace.name().into(),
        name: restored.as_str().into(),
        body: copy(bench, resource, &restored, &served),
        expect: RestoreExpect::Absent,
        dry_run: false,
        status: false,
    };
    bench.writer.restore(&restore).await.map_err(|failure| anyhow::anyhow!("{restored}: {failure}"))?;
    same(&served, &live(bench, resource, &restored).await?, &restored)
}

#[tokio::test]
async fn every_character_arrives_in_data_and_annotations() -> Result<()> {
    let bench = Bench::new().await?;
    let resource = bench.resource("", "ConfigMap")?;
    for (n, block) in blocks().iter().enumerate() {
        arrives(&bench, &resource, n, &config_map(block)).await?;
    }
    bench.close().await
}

#[tokio::test]
async fn every_character_arrives_in_keys_and_values_of_a_custom_resource() -> Result<()> {
    let bench = Bench::new().await?;
    let queues = Queues::install(&bench).await?;
    for (n, block) in blocks().iter().enumerate() {
        arrives(&bench, &queues.resource, n, &queue(block)).await?;
    }
    queues.remove(&bench).await?;
    bench.close().await
}

fn content() -> impl Strategy<Value = Value> {
    let text = "[a-c\\\\/\" \t\r\n\u{0}\u{7f}\u{85}\u{a0}\u{2028}\u{2029}\u{feff}\u{fffe}\u{1f600}]{0,8}";
    let plain = prop::sample::select(vec![
        "<<",
        "=",
        "~",
        "null",
        "y",
        "on",
        "0x10",
        "1_000",
        ".5",
        "12:30:45",
        "2001-01-01",
        "*a",
        "&a",
        "",
        "- ",
        "#",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000i64..1_000_000).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![1.0, 0.1, 1e21, 1e20, 1e-7, 1.5e300, 5e-324]).prop_map(Value::from),
        text.prop_map(Value::from),
        plain.clone().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(Value::from("x".repeat(2_000))),
    ];
    let key = prop_oneof![6 => text.prop_map(String::from), 3 => plain.prop_map(str::to_owned), 1 => "[k\u{2028}]{900,1200}"];
    let inner = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-d]", inner, 0..5).prop_map(|map| json!({"spec": {"any": map}}))
}

/// Does a map that has members become one without? 1.20.2 makes null of it, which is a known limit
/// (docs/decisions/0015-bodies-are-yaml.md).
fn is_emptied(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            (after.is_empty() && !before.is_empty())
                || after.iter().any(|(name, value)| before.get(name).is_some_and(|b| is_emptied(b, value)))
        }
        _ => false,
    }
}

#[tokio::test]
async fn any_content_of_a_custom_resource_arrives_and_follows() -> Result<()> {
    let seed: u64 = match std::env::var("LOCKSTEP_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => 16,
    };
    println!("LOCKSTEP_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let bench = Bench::new().await?;
    let queues = Queues::install(&bench).await?;
    let resource = &queues.resource;
    for n in 0..100 {
        let mut next = || content().new_tree(&mut runner).map(|tree| tree.current());
        let (first, second) = (next().map_err(anyhow::Error::msg)?, next().map_err(anyhow::Error::msg)?);
        let before = source(&bench, resource, &format!("before-{n}"), &first).await?;
        let after = source(&bench, resource, &format!("after-{n}"), &second).await?;
        let name = format!("copy-{n}");
        let body = copy(&bench, resource, &name, &before);
        let created =
            applied(bench.writer.apply(&plan(&bench, resource, &name, body, absent("n"))?).await.outcome)
                .with_context(|| first.to_string())?;
        same(&before, &live(&bench, resource, &name).await?, &format!("{name} of {first}"))?;
        if is_emptied(&first, &second) {
            continue;
        }
        let body = copy(&bench, resource, &name, &after);
        applied(bench.writer.apply(&plan(&bench, resource, &name, body, present(&created))?).await.outcome)
            .with_context(|| format!("from {first} to {second}"))?;
        same(&after, &live(&bench, resource, &name).await?, &format!("{name} from {first} to {second}"))?;
    }
    queues.remove(&bench).await?;
    bench.close().await
}
