//! What people write arrives as they wrote it: every byte, and null where null is a value.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_tests::harness::{PATIENCE, eventually, unique_name};
use lockstep_tests::testbed::Testbed;
use serde_json::{Value, json};

use super::{Case, MARKER, definition, grant, policy, post, put};

const MAP: (&str, &str, &str) = ("v1", "ConfigMap", "exact");

/// Case 11 (config-syncer/config-syncer#490, rancher/fleet#1530, rancher/rancher#26721, argoproj/argo-cd#6033): line ends,
/// blanks, a byte order mark, control characters, line separators, binary keys.
#[tokio::test(flavor = "multi_thread")]
async fn case_11_config_maps_arrive_byte_for_byte() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let case = Case::start(&bed, "case-11", |namespace| {
        let resources = format!("{{ kind: ConfigMap, namespaces: [{namespace}], names: [exact, {MARKER}] }}");
        vec![policy("case-11", "cluster-b", &resources, "")]
    })
    .await?;
    let map = |more: &[(&str, &str)], binary: &[u8]| {
        let mut data = json!({
            "crlf": "a=1\r\nb=2\r\n",
            "blanks": "   #   COLLECTOR__<A>=<b>  \n\t\ttab \t\n \n",
            "bom": "\u{FEFF}with a byte order mark",
            "newlines": "\n\n\n",
            "empty": "",
            "control": "nul \0 bell \u{7} esc \u{1B}[0m del \u{7F} c1 \u{9B}31m",
            "unicode": "🧨 👩\u{200D}👧 ls x \u{2028} y ps x \u{2029} y nel x \u{85} y nfd e\u{301} rtl \u{202E} fffe \u{FFFE}",
            "yaml": "---\nkey: !!binary |\n  yes\n# { [ : } ] * & ! | > % @ `\n\"$(HOME)\" ${X} \\n \\u0000 \"\n",
        });
        for (key, value) in more {
            data[key] = (*value).into();
        }
        let annotations = json!({"example.com/story": "line one\nline two \u{2028} 🧨"});
        case.object(
            "v1",
            "ConfigMap",
            "exact",
            json!({"metadata": {"annotations": annotations}, "data": data,
                "binaryData": {"cert.p12": STANDARD.encode(binary)}}),
        )
    };
    post(case.a(), &map(&[("moves", "text now, binary later")], b"\xff\xfe\x00\x80binary")).await?;
    for part in ["/data", "/binaryData"] {
        case.same("case 11", MAP, part).await?;
    }
    case.same("case 11, an annotation of two lines", MAP, "/metadata/annotations/example.com~1story").await?;
    // From text to binary, and one more newline.
    let mut changed = map(&[("crlf", "a=1\r\nb=2\r\n\n")], b"\x00\xffother");
    changed["binaryData"]["moves"] = STANDARD.encode(b"\x00\xffnow binary").into();
    put(case.a(), &changed).await?;
    case.same("case 11, a key moved", MAP, "/binaryData").await?;
    case.same("case 11, one newline more", MAP, "/data").await?;
    case.holds("case 11, the key left data", case.b(), MAP, |copy| copy["data"].get("moves").is_none())
        .await?;
    case.quiet("case 11", &[MAP]).await?;
    in_step(&case, "case-11").await
}

const KNOB: &str = "{ type: object, properties: { spec: { type: object, properties: { limit: { type: integer, nullable: true, default: 5 }, selector: { type: object, nullable: true, default: {}, x-kubernetes-preserve-unknown-fields: true }, free: { type: object, x-kubernetes-preserve-unknown-fields: true } } } } }";

/// Case 09 (kubernetes/kubernetes#129456, cilium/tetragon#4889): null selects nothing, absence everything.
#[tokio::test(flavor = "multi_thread")]
async fn case_09_null_is_not_absent_in_a_custom_resource() -> Result<()> {
    let bed = Testbed::from_env().await?;
    let group = format!("{}.example.com", unique_name("null")?);
    let [a, b, _] = bed.three()?;
    for cluster in [a, b] {
        cluster.install_crd(&definition(&group, "Knob", KNOB)).await?;
    }
    grant(&bed, b, &group, "knobs").await?;
    let custom = group.clone();
    let case = Case::start(&bed, "case-09", move |namespace| {
        let resources = format!(
            "{{ apiGroup: '{custom}', kind: Knob, namespaces: [{namespace}] }}, \
             {{ kind: ConfigMap, namespaces: [{namespace}], names: [{MARKER}] }}"
        );
        vec![policy("case-09", "cluster-b", &resources, "")]
    })
    .await?;
    let version = format!("{group}/v1");
    let of = (version.as_str(), "Knob", "k");
    let knob = |spec: Value| case.object(&version, "Knob", "k", json!({ "spec": spec }));
    let nulls = json!({"limit": null, "selector": null, "free": {"a": null, "list": [null], "map": {}, "n": 9_007_199_254_740_993_i64}});
    let first = knob(nulls.clone());
    eventually(PATIENCE, "the kind is served", async || post(case.a(), &first).await.map(drop)).await?;
    case.holds("case 09, null for null", case.b(), of, |copy| copy["spec"] == nulls).await?;
    put(case.a(), &knob(json!({"limit": 7, "selector": {"x": "y"}, "free": {"a": 1}}))).await?;
    case.holds("case 09, a value", case.b(), of, |copy| copy["spec"]["limit"] == 7).await?;
    case.same("case 09, values", of, "/spec").await?;
    put(case.a(), &knob(nulls.clone())).await?;
    case.holds("case 09, and null again", case.b(), of, |copy| copy["spec"] == nulls).await?;
    case.quiet("case 09", &[of]).await?;
    in_step(&case, "case-09").await
}

async fn in_step(case: &Case<'_>, policy: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{policy} is in step"), async || {
        let shown = case.lockstep.text(&["status", policy]).await?;
        ensure!(shown.contains("InStep") && !shown.contains("Differs"), "{shown}");
        Ok(())
    })
    .await
}
