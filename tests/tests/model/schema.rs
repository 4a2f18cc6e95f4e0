//! `tests/model/schema.json` is what a real API server says of its types. With `LOCKSTEP_UPDATE_SCHEMA=1` it is written anew.

use anyhow::{Result, ensure};
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
