//! The scripts of `tests/model/conformance.txt`: cases of steps, each a request and what is expected of the answer.
//!
//! ```text
//! case a conflict names the field and its owner
//!   apply m cm a {"data": {"x": "1"}}      => 201
//!   apply n cm a {"data": {"x": "2"}}      => 409 Conflict
//! ```
//!
//! | step | request |
//! |---|---|
//! | `apply MANAGER KIND NAME BODY` | server-side apply; `MANAGER!` by force |
//! | `post`, `put`, `merge`, `json MANAGER KIND NAME BODY` | POST, PUT, merge patch, JSON patch |
//! | `get KIND NAME`, `delete KIND NAME [BODY]` | |
//! | `list KIND QUERY`, `watch KIND QUERY` | `QUERY` begins with `?`; a watch is read to its end |
//! | `raw METHOD PATH [CONTENT-TYPE BODY]` | anything |
//!
//! `KIND.status` is the subresource; `NAME` may carry a query (`a?dryRun=All`). Bodies get apiVersion, kind, name and
//! namespace where they do not say. `$ns` is the namespace of the case, `$x` what `-> x=metadata.uid` kept of an
//! earlier answer. `$wait` is how many seconds a watch lasts that shows what has happened, `$longer` is three more, for
//! bookmarks. A step that begins with `until` is repeated until its expectation holds. What follows `=>` is the status,
//! a reason, and checks `path=json` or `path!` (not there). `kind w = GROUP/VERSION KIND PLURAL (ns|cluster)` names a
//! custom kind; `since 1.34` skips older servers.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) since: (u32, u32),
    pub(crate) kinds: Vec<(String, Kind)>,
    pub(crate) steps: Vec<Step>,
}

/// Where a kind is.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// As written.
    pub(crate) text: String,
    pub(crate) until: bool,
    pub(crate) verb: String,
    /// Words of the request, and what remains of it as a body.
    pub(crate) words: Vec<String>,
    pub(crate) body: String,
    pub(crate) status: u16,
    pub(crate) reason: Option<String>,
    pub(crate) checks: Vec<Check>,
    pub(crate) kept: Vec<(String, String)>,
}

/// What an answer must have.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) path: String,
    /// None: it is not there.
    pub(crate) value: Option<String>,
}

const KINDS: &str = "
cm v1 ConfigMap configmaps ns
secret v1 Secret secrets ns
svc v1 Service services ns
sa v1 ServiceAccount serviceaccounts ns
pod v1 Pod pods ns
quota v1 ResourceQuota resourcequotas ns
limits v1 LimitRange limitranges ns
pvc v1 PersistentVolumeClaim persistentvolumeclaims ns
endpoints v1 Endpoints endpoints ns
ns v1 Namespace namespaces cluster
pv v1 PersistentVolume persistentvolumes cluster
deploy apps/v1 Deployment deployments ns
sts apps/v1 StatefulSet statefulsets ns
ds apps/v1 DaemonSet daemonsets ns
rs apps/v1 ReplicaSet replicasets ns
job batch/v1 Job jobs ns
cronjob batch/v1beta1 CronJob cronjobs ns
ingress networking.k8s.io/v1 Ingress ingresses ns
netpol networking.k8s.io/v1 NetworkPolicy networkpolicies ns
pdb policy/v1beta1 PodDisruptionBudget poddisruptionbudgets ns
hpa autoscaling/v1 HorizontalPodAutoscaler horizontalpodautoscalers ns
lease coordination.k8s.io/v1 Lease leases ns
role rbac.authorization.k8s.io/v1 Role roles ns
rolebinding rbac.authorization.k8s.io/v1 RoleBinding rolebindings ns
clusterrole rbac.authorization.k8s.io/v1 ClusterRole clusterroles cluster
storageclass storage.k8s.io/v1 StorageClass storageclasses cluster
priorityclass scheduling.k8s.io/v1 PriorityClass priorityclasses cluster
crd apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions cluster
";

fn kind(words: &[&str]) -> Result<(String, Kind)> {
    let [name, api_version, kind, plural, scope] = words else { bail!("a kind needs five words: {words:?}") };
    let kind = Kind {
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
        namespaced: *scope == "ns",
    };
    Ok(((*name).to_owned(), kind))
}

/// Reads the table.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("line {}: {line}", number + 1);
        if let Some(name) = line.strip_prefix("section ") {
            section = name.to_owned();
        } else if let Some(name) = line.strip_prefix("case ") {
            let kinds = KINDS.lines().filter(|line| !line.is_empty());
            let kinds =
                kinds.map(|line| kind(&line.split(' ').collect::<Vec<_>>())).collect::<Result<_>>()?;
            let (name, section) = (name.to_owned(), section.clone());
            cases.push(Case { section, name, since: (1, 20), kinds, steps: Vec::new() });
        } else {
            let case = cases.last_mut().with_context(at)?;
            if let Some(version) = line.strip_prefix("since ") {
                let (major, minor) = version.split_once('.').with_context(at)?;
                case.since = (major.parse()?, minor.parse()?);
            } else if let Some(rest) = line.strip_prefix("kind ") {
                let words: Vec<&str> = rest.split(' ').filter(|word| *word != "=").collect();
                case.kinds.push(kind(&words).with_context(at)?);
            } else {
                case.steps.push(step(line).with_context(at)?);
            }
        }
    }
    Ok(cases)
}

fn step(line: &str) -> Result<Step> {
    let (request, expected) = line.rsplit_once("=>").context("no => in it")?;
    let (expected, kept) = expected.split_once("->").unwrap_or((expected, ""));
    let request = request.trim();
    let (until, rest) = match request.strip_prefix("until ") {
        Some(rest) => (true, rest),
        None => (false, request),
    };
    let begins = rest.find([' ', '{', '[']).map_or(rest.len(), |_| body_start(rest));
    let (words, body) = rest.split_at(begins);
    let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    ensure!(!words.is_empty(), "no request");
    let verb = words.remove(0);
    let mut expected = expected.split_whitespace();
    let status = expected.next().context("no status")?.parse().context("the status")?;
    let mut reason = None;
    let mut checks = Vec::new();
    for word in expected {
        if let Some(path) = word.strip_suffix('!') {
            checks.push(Check { path: path.to_owned(), value: None });
        } else if let Some((path, value)) = word.split_once('=') {
            checks.push(Check { path: path.to_owned(), value: Some(value.to_owned()) });
        } else {
            reason = Some(word.to_owned());
        }
    }
    let kept = kept.split_whitespace().filter_map(|word| word.split_once('='));
    let kept = kept.map(|(name, path)| (name.to_owned(), path.to_owned())).collect();
    let (text, body) = (line.to_owned(), body.trim().to_owned());
    Ok(Step { text, until, verb, words, body, status, reason, checks, kept })
}

/// Where the body of a request begins: at a brace or bracket that starts a word.
fn body_start(text: &str) -> usize {
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if before == ' ' && matches!(c, '{' | '[' | '@') {
            return at;
        }
        before = c;
    }
    text.len()
}

/// The value at a path of names and positions between dots; `\.` is a dot in a name.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.replace("\\.", "\u{1}");
    path.split('.').filter(|part| !part.is_empty()).try_fold(value, |value, part| {
        let part = part.replace('\u{1}', ".");
        match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            other => other.get(&part),
        }
    })
}
