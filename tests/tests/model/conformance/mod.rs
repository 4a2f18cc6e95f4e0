//! One table of requests and answers, for the model over HTTP and for a real API server: both must do as the table says,
//! and answer alike. What differs is named in [`EXCEPTIONS`], with the reason.

#![allow(clippy::print_stdout, reason = "it tells what it could not verify, and what it excuses")]

mod normal;
mod script;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use lockstep_tests::harness::{PATIENCE, eventually, in_time, unique_name};
use lockstep_tests::model::serve::Served;
use lockstep_tests::model::{ApiServer, Config};
use lockstep_tests::patience::scaled;
use lockstep_tests::testbed::Testbed;
use normal::{differences, events, normal};
use script::{Case, Step, at, parse};
use serde_json::{Value, json};

const TABLE: &str = include_str!("../../../model/conformance.txt");
/// Cases at a time: watches wait for their timeouts.
const AT_ONCE: usize = 8;
/// Longest that one request may take; watches end after their own timeouts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a watch lasts that shall show what has happened already, on an idle machine.
const WATCHED: Duration = Duration::from_secs(1);

/// Where the model does not answer as the real API server does: the case, and why that may stay so.
const EXCEPTIONS: &[(&str, &str)] = &[];

type Sent = dyn Fn(http::Request<Full<Bytes>>) -> BoxFuture<'static, Result<http::Response<Incoming>>>;

/// One server under test, over a client that never asks twice.
struct Bench {
    client: Box<Sent>,
    server: String,
    token: String,
    prefix: String,
}

/// An answer: status and body as compared.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    status: u16,
    normal: Value,
}

impl Bench {
    async fn real(testbed: &Testbed, prefix: &str) -> Result<Self> {
        let [a, _, _] = testbed.three()?;
        let kubeconfig = Kubeconfig::read_from(testbed.kubeconfig())?;
        let context = Some(a.name().to_owned());
        Self::new(kubeconfig, KubeConfigOptions { context, ..KubeConfigOptions::default() }, "", prefix).await
    }

    async fn model(served: &Served, prefix: &str) -> Result<Self> {
        let kubeconfig = Kubeconfig::from_yaml(&served.kubeconfig("model", "admin"))?;
        Self::new(kubeconfig, KubeConfigOptions::default(), "admin", prefix).await
    }

    async fn new(
        kubeconfig: Kubeconfig,
        options: KubeConfigOptions,
        token: &str,
        prefix: &str,
    ) -> Result<Self> {
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::builder(TokioExecutor::new()).build(config.rustls_https_connector()?);
        Ok(Self {
            client: Box::new(move |request| {
                let sent = client.request(request);
                Box::pin(async move { sent.await.context("asking the API server") })
            }),
            server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn namespace(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: String) -> Result<(u16, String)> {
        let uri = format!("{}{path}", self.server);
        let mut request =
            http::Request::builder().method(method).uri(uri).header("User-Agent", "conformance/1");
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        if !content.is_empty() {
            request = request.header("Content-Type", content);
        }
        let exchange = async {
            let response = (self.client)(request.body(Full::new(Bytes::from(body)))?).await?;
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.context("reading the answer")?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        in_time(REQUEST_TIMEOUT, "the API server answers", exchange).await?
    }

    /// Runs a case; what was seen of each step, and what was not as expected.
    async fn run(&self, number: usize, case: &Case) -> Result<(Vec<Seen>, Vec<String>)> {
        let namespace = self.namespace(number);
        let body = json!({"metadata": {"name": namespace}}).to_string();
        let (status, text) = self.send("POST", "/api/v1/namespaces", "application/json", body).await?;
        ensure!(status == 201, "creating namespace {namespace}: {text}");
        let wait = scaled(WATCHED).as_secs();
        let mut kept = BTreeMap::from([
            ("ns".to_owned(), namespace.clone()),
            ("wait".to_owned(), wait.to_string()),
            ("longer".to_owned(), (wait + 3).to_string()),
        ]);
        let (mut seen, mut wrong) = (Vec::new(), Vec::new());
        for step in &case.steps {
            let (answer, value) = self.step(case, step, &kept).await.with_context(|| step.text.clone())?;
            if let Err(error) = expected(step, &answer, &value, &kept) {
                wrong.push(format!("{}: {error:#}: {} {value}", step.text, answer.status));
            }
            for (name, path) in &step.kept {
                let text =
                    at(&value, path).map(|found| found.as_str().map_or(found.to_string(), str::to_owned));
                kept.insert(name.clone(), text.unwrap_or_default());
            }
            seen.push(answer);
        }
        Ok((seen, wrong))
    }

    async fn step(&self, case: &Case, step: &Step, kept: &BTreeMap<String, String>) -> Result<(Seen, Value)> {
        let (method, path, content, body) = request(case, step, kept)?;
        let namespace = kept.get("ns").cloned().unwrap_or_default();
        let once = async || {
            let (status, text) = self.send(&method, &path, content, body.clone()).await?;
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_str()));
            let watched = step.verb == "watch" && status == 200;
            let normal = if watched { events(&text, &namespace) } else { normal(&value, &namespace) };
            let value = if watched { watched_value(&text) } else { value };
            anyhow::Ok((Seen { status, normal }, value))
        };
        if !step.until {
            return once().await;
        }
        eventually(PATIENCE, &step.text, async || {
            let (seen, value) = once().await?;
            expected(step, &seen, &value, kept).with_context(|| value.to_string())?;
            Ok((seen, value))
        })
        .await
    }
}

/// The events of a watch as a list, for checks.
fn watched_value(text: &str) -> Value {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = |event: &Value| event["object"]["metadata"]["name"] != "kube-root-ca.crt";
    Value::Array(lines.filter(own).collect())
}

fn fill(text: &str, kept: &BTreeMap<String, String>) -> String {
    // Longer names first, so that $ns is not read where $nsuid is meant.
    let mut names: Vec<_> = kept.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
}

/// Method, path with query, content type, body.
fn request(
    case: &Case,
    step: &Step,
    kept: &BTreeMap<String, String>,
) -> Result<(String, String, &'static str, String)> {
    let words: Vec<String> = step.words.iter().map(|word| fill(word, kept)).collect();
    let word = |n: usize| words.get(n).map(String::as_str).unwrap_or_default();
    let body = fill(&step.body, kept);
    if step.verb == "raw" {
        let content = match word(2) {
            "" => "",
            "apply" => "application/apply-patch+yaml",
            "json" => "application/json",
            "merge" => "application/merge-patch+json",
            "jsonpatch" => "application/json-patch+json",
            _ => "text/plain",
        };
        return Ok((word(0).to_owned(), word(1).to_owned(), content, body));
    }
    let writes = matches!(step.verb.as_str(), "apply" | "post" | "put" | "merge" | "json");
    let (manager, rest) = if writes { (word(0), 1) } else { ("", 0) };
    let (kind, subresource) = word(rest).split_once('.').unwrap_or((word(rest), ""));
    let (_, kind) =
        case.kinds.iter().rev().find(|(name, _)| name == kind).with_context(|| format!("no kind {kind}"))?;
    let (name, query) = word(rest + 1).split_once('?').unwrap_or((word(rest + 1), ""));
    let root = if kind.api_version.contains('/') { "/apis" } else { "/api" };
    let mut path = format!("{root}/{}", fill(&kind.api_version, kept));
    let namespace = kept.get("ns").map(String::as_str).unwrap_or_default();
    if kind.namespaced {
        write!(path, "/namespaces/{namespace}")?;
    }
    write!(path, "/{}", kind.plural)?;
    if !name.is_empty() && step.verb != "post" {
        write!(path, "/{}", name.replace(':', "%3A"))?;
    }
    if !subresource.is_empty() {
        write!(path, "/{subresource}")?;
    }
    let mut parameters = Vec::new();
    if !query.is_empty() {
        parameters.push(query.to_owned());
    }
    if !manager.is_empty() && manager != "-" {
        parameters.push(format!("fieldManager={}", manager.trim_end_matches('!')));
        if manager.ends_with('!') {
            parameters.push("force=true".to_owned());
        }
    }
    if step.verb == "watch" {
        parameters.push("watch=true".to_owned());
    }
    if !parameters.is_empty() {
        write!(path, "?{}", parameters.join("&"))?;
    }
    let (method, content) = match step.verb.as_str() {
        "apply" => ("PATCH", "application/apply-patch+yaml"),
        "merge" => ("PATCH", "application/merge-patch+json"),
        "json" => ("PATCH", "application/json-patch+json"),
        "post" => ("POST", "application/json"),
        "put" => ("PUT", "application/json"),
        "delete" => ("DELETE", if body.is_empty() { "" } else { "application/json" }),
        "get" | "list" | "watch" => ("GET", ""),
        other => bail!("no step {other}"),
    };
    let body = if matches!(step.verb.as_str(), "apply" | "post" | "put") {
        whole(&body, &fill(&kind.api_version, kept), &kind.kind, name)?
    } else {
        body
    };
    Ok((method.to_owned(), path, content, body))
}

/// A body with apiVersion, kind and name where it does not say.
fn whole(body: &str, api_version: &str, kind: &str, name: &str) -> Result<String> {
    if body.is_empty() || body.starts_with('@') {
        return Ok(body.trim_start_matches('@').to_owned());
    }
    let mut body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    for (member, value) in [("apiVersion", api_version), ("kind", kind)] {
        if body.get(member).is_none() {
            body[member] = value.into();
        }
    }
    if body["metadata"].get("name").is_none() && body["metadata"].get("generateName").is_none() && name != "-"
    {
        body["metadata"]["name"] = name.into();
    }
    Ok(body.to_string())
}

fn expected(step: &Step, seen: &Seen, value: &Value, kept: &BTreeMap<String, String>) -> Result<()> {
    ensure!(seen.status == step.status, "status {} instead of {}", seen.status, step.status);
    if let Some(reason) = &step.reason {
        ensure!(value["reason"] == reason.as_str(), "reason {} instead of {reason}", value["reason"]);
    }
    for check in &step.checks {
        let found = at(value, &check.path);
        match &check.value {
            None => ensure!(found.is_none_or(Value::is_null), "{} is {found:?}", check.path),
            Some(text) => {
                let text = fill(text, kept);
                let wanted: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text));
                ensure!(found == Some(&wanted), "{} is {found:?} instead of {wanted}", check.path);
            }
        }
    }
    Ok(())
}

async fn model(version: (u32, u32)) -> Result<Served> {
    let now = lockstep_tests::conditions::now_ms()?;
    Served::start(ApiServer::new(now, Config { bookmark_ms: 60_000, ..Config::new(version, 7) })).await
}

fn selected(cases: Vec<Case>) -> Vec<(usize, Case)> {
    // CONFORMANCE=text runs the cases whose name contains it.
    let wanted = std::env::var("CONFORMANCE").unwrap_or_default();
    cases.into_iter().enumerate().filter(|(_, case)| case.name.contains(&wanted)).collect()
}

/// The table against the model alone, at the oldest and the newest version that lockstep knows.
#[tokio::test]
async fn the_model_does_as_the_table_says() -> Result<()> {
    let mut failures = Vec::new();
    for version in [(1, 20), (1, 34)] {
        let served = model(version).await?;
        let bench = Bench::model(&served, "conf").await?;
        // Rules of 1.20 that newer versions changed are held for 1.20 only; their own rows say `since`.
        let cases = selected(parse(TABLE)?).into_iter();
        let cases: Vec<_> = cases.filter(|(_, case)| (case.since > (1, 20)) == (version > (1, 20))).collect();
        let ran =
            futures::stream::iter(&cases).map(async |(number, case)| (case, bench.run(*number, case).await));
        let mut ran = ran.buffer_unordered(AT_ONCE);
        while let Some((case, outcome)) = ran.next().await {
            match outcome {
                Ok((_, wrong)) => failures.extend(wrong.iter().map(|w| format!("[{}] {w}", case.name))),
                Err(error) => failures.push(format!("[{}] {error:#}", case.name)),
            }
        }
    }
    failures.sort();
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// The table against both: as expected, and alike.
#[tokio::test]
async fn the_model_answers_as_a_real_api_server_does() -> Result<()> {
    let testbed = Testbed::from_env().await?;
    let version = testbed.version()?;
    let prefix = unique_name("conf")?;
    let real = Bench::real(&testbed, &prefix).await?;
    let served = model(version).await?;
    let model = Bench::model(&served, &prefix).await?;
    let (cases, unverified): (Vec<_>, Vec<_>) =
        selected(parse(TABLE)?).into_iter().partition(|(_, case)| case.since <= version);
    for (_, case) in &unverified {
        println!("unverified (needs {}.{}): {}", case.since.0, case.since.1, case.name);
    }
    let ran = futures::stream::iter(&cases).map(async |(number, case)| {
        let outcome = futures::future::join(real.run(*number, case), model.run(*number, case)).await;
        (*number, case, outcome)
    });
    let mut report = Report::default();
    let mut ran = ran.buffer_unordered(AT_ONCE);
    while let Some((_, case, (real_ran, model_ran))) = ran.next().await {
        report.add(case, real_ran, model_ran);
    }
    if testbed.state().lasting {
        clear_up(&real, &cases).await?;
    }
    println!("{} cases, {} unverified, {} exceptions", cases.len(), unverified.len(), EXCEPTIONS.len());
    report.conclude()
}

/// Deletes the namespaces of the cases. A namespace costs its controller about 80 requests, one worker makes them one
/// after the other, and all namespaces of a cluster stand in one queue: cases that wait for a namespace to go, and other
/// tests, would wait behind those that nobody waits for. Control planes that end with the run need no clearing up.
async fn clear_up(real: &Bench, cases: &[(usize, Case)]) -> Result<()> {
    for (number, case) in cases {
        let path = format!("/api/v1/namespaces/{}", real.namespace(*number));
        let (status, text) = real.send("DELETE", &path, "", String::new()).await?;
        // Some cases delete theirs.
        ensure!(
            [200, 202, 404, 409].contains(&status),
            "[{}] deleting its namespace: {status} {text}",
            case.name
        );
    }
    Ok(())
}

type Ran = Result<(Vec<Seen>, Vec<String>)>;

#[derive(Default)]
struct Report {
    failures: Vec<String>,
    excused: Vec<String>,
}

impl Report {
    fn add(&mut self, case: &Case, real: Ran, model: Ran) {
        let mut found = Vec::new();
        let (mut sides, mut answers) = (Vec::new(), Vec::new());
        for (side, ran) in [("real", real), ("model", model)] {
            match ran {
                Ok((seen, wrong)) => {
                    sides.extend(wrong.into_iter().map(|w| format!("{side}: {w}")));
                    answers.push(seen);
                }
                Err(error) => sides.push(format!("{side}: {error:#}")),
            }
        }
        found.append(&mut sides);
        if let [real, model] = answers.as_slice() {
            for (step, (real, model)) in case.steps.iter().zip(real.iter().zip(model)) {
                let mut differ = Vec::new();
                if real.status != model.status {
                    differ.push(format!("status: real {} model {}", real.status, model.status));
                }
                differences("", &real.normal, &model.normal, &mut differ);
                found.extend(differ.into_iter().map(|d| format!("{}: {d}", step.text)));
            }
        }
        let excused = EXCEPTIONS.iter().any(|(name, _)| *name == case.name);
        match (found.is_empty(), excused) {
            (true, true) => self.failures.push(format!("[{}] is an exception no more", case.name)),
            (false, true) => self.excused.push(case.name.clone()),
            (true, false) => {}
            (false, false) => {
                let title = format!("[{}: {}]", case.section, case.name);
                self.failures.push(format!("{title}\n    {}", found.join("\n    ")));
            }
        }
    }

    fn conclude(mut self) -> Result<()> {
        for (name, reason) in EXCEPTIONS.iter().filter(|(name, _)| self.excused.iter().any(|e| e == name)) {
            println!("exception: {name}: {reason}");
        }
        self.failures.sort();
        ensure!(
            self.failures.is_empty(),
            "{} cases differ:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        Ok(())
    }
}
