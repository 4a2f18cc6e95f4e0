//! Lists: consistent, in pages of one snapshot, or from the watch cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::http::{Answer, Parameters};
use super::selector::Selection;
use super::server::{ApiServer, Call, json_answer};
use super::status::ApiError;
use super::store::{Key, Stored};

/// etcd's words, passed through.
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

/// A version as a number; none is 0.
pub(crate) fn revision_of(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        ApiError::internal(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

pub(crate) fn selection(parameters: &Parameters) -> Result<Selection, ApiError> {
    Selection::parse(parameters.get("labelSelector"), parameters.get("fieldSelector"))
}

/// Where a list goes on.
struct Token {
    /// Nothing: at whatever is there now.
    revision: Option<u64>,
    start: String,
}

impl Token {
    fn decode(text: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("invalid continue token: continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let revision = token["rv"].as_i64().filter(|revision| *revision != 0).ok_or_else(bad)?;
        let start = token["start"].as_str().filter(|start| !start.is_empty()).ok_or_else(bad)?;
        Ok(Self { revision: u64::try_from(revision).ok(), start: start.to_owned() })
    }

    fn encode(&self) -> String {
        let revision = self.revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(-1);
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }
}

/// What to list, and as of when.
struct Page {
    /// Nothing: those of now.
    objects: Option<BTreeMap<Key, Arc<Stored>>>,
    revision: u64,
    /// 0: all.
    limit: usize,
    /// Keys from here on.
    start: String,
}

impl ApiServer {
    pub(crate) fn list(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let selection = selection(&call.parameters)?;
        let page = self.page(call)?;
        let table = self.store.table(&call.kind.table());
        let rest = in_scope(call, page.objects.as_ref().unwrap_or_else(|| table.all()), &page.start);
        let mut items = Vec::new();
        let mut scanned = 0_usize;
        for (_, object) in &rest {
            if page.limit > 0 && items.len() >= page.limit {
                break;
            }
            scanned += 1;
            if selection.matches(&object.value) {
                items.push(self.item(call, object));
            }
        }
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if scanned < rest.len() {
            // Keys sort behind the last one from its own text with a zero byte on.
            let last = rest.get(scanned.saturating_sub(1)).map_or("", |(path, _)| path.as_str());
            let token = Token { revision: Some(page.revision), start: format!("{last}\0") };
            metadata["continue"] = token.encode().into();
            if selection.is_empty() {
                metadata["remainingItemCount"] = (rest.len() - scanned).into();
            }
        } else if call.kind.custom.is_some() {
            metadata["continue"] = "".into();
        }
        Ok(json_answer(200, body(call, &metadata, &items)))
    }

    fn item(&self, call: &Call<'_>, object: &Stored) -> bytes::Bytes {
        if wants_metadata(call) {
            let partial = json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value["metadata"],
            });
            return partial.to_string().into();
        }
        if call.kind.custom.is_some() { self.shown(&call.kind, object) } else { object.item() }
    }

    /// Which snapshot a list shows.
    fn page(&self, call: &Call<'_>) -> Result<Page, ApiError> {
        let parameters = &call.parameters;
        let table = self.store.table(&call.kind.table());
        let limit = match parameters.get("limit") {
            "" => 0,
            text => text.parse::<usize>().map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            })?,
        };
        let asked = parameters.get("resourceVersion");
        let current = self.store.revision();
        let now = |limit| Page { objects: None, revision: current, limit, start: String::new() };
        if parameters.has("continue") && !parameters.get("continue").is_empty() {
            let token = Token::decode(parameters.get("continue"))?;
            if !matches!(asked, "" | "0") {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let Some(revision) = token.revision else { return Ok(Page { start: token.start, ..now(limit) }) };
            if revision > current {
                return Err(ApiError::internal(FUTURE));
            }
            if revision < self.store.compacted() {
                let next = Token { revision: None, start: token.start };
                return Err(ApiError::expired_token(next.encode()));
            }
            return Ok(Page { objects: Some(table.at(revision)), revision, limit, start: token.start });
        }
        if asked.is_empty() {
            return Ok(now(limit));
        }
        if limit > 0 && asked != "0" {
            let revision: u64 = asked
                .parse()
                .map_err(|_| ApiError::bad_request(format!("invalid resource version: {asked}")))?;
            if revision > current {
                return Err(ApiError::internal(FUTURE));
            }
            if parameters.get("resourceVersionMatch") == "NotOlderThan" {
                return Ok(now(limit));
            }
            if revision < self.store.compacted() {
                let message = "The resourceVersion for the provided list is too old.".to_owned();
                return Err(ApiError::expired(message));
            }
            return Ok(Page { objects: Some(table.at(revision)), revision, limit, start: String::new() });
        }
        let revision = revision_of(asked)?;
        let cached = self.cached_revision(&call.kind);
        if revision > current {
            return Err(ApiError::version_too_large(revision, cached));
        }
        Ok(Page { revision: cached.max(revision), ..now(0) })
    }
}

/// The objects that a list covers from a key on, in etcd's order: that of the whole path.
fn in_scope<'a>(
    call: &Call<'_>,
    objects: &'a BTreeMap<Key, Arc<Stored>>,
    start: &str,
) -> Vec<(String, &'a Arc<Stored>)> {
    let everywhere = call.kind.namespaced && call.target.namespace.is_empty();
    let mut out = Vec::new();
    for (key, object) in objects {
        if !call.target.namespace.is_empty() && key.0 != call.target.namespace {
            continue;
        }
        let path = if everywhere { format!("{}/{}", key.0, key.1) } else { key.1.clone() };
        if path.as_str() >= start {
            out.push((path, object));
        }
    }
    if everywhere {
        out.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out
}

/// Does the client want nothing but metadata?
fn wants_metadata(call: &Call<'_>) -> bool {
    call.request.accept.contains("as=PartialObjectMetadataList")
}

fn body(call: &Call<'_>, metadata: &Value, items: &[bytes::Bytes]) -> Vec<u8> {
    let (kind, api_version) = if wants_metadata(call) {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        (format!("{}List", call.kind.kind), call.kind.api_version())
    };
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        Value::from(kind),
        Value::from(api_version)
    );
    let mut out = head.into_bytes();
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
    out
}
