//! `GET /objects`: objects across the fleet, from the state store.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use lockstep_engine::selector::LabelSelector;
use lockstep_engine::status::{State as Standing, Status};
use lockstep_engine::{ClusterId, GroupKind, ObjectKey, advice};
use serde::Deserialize;
use serde_json::Value;

use super::auth::Caller;
use super::error::ApiError;
use super::kinds::{self, Kind};
use super::params::{Params, all_clusters, cluster_id, cluster_name};
use super::types::{List, ObjectItem};
use super::{Api, selector};
use crate::redact;
use crate::store::{ClusterRow, ObjectRow, PlacementFilter, PlacementRow, Reader, StoreError};

/// Items of a page, unless asked for otherwise.
const PAGE: usize = 500;
/// Items of a page at most.
const PAGE_MAX: usize = 1000;
/// Rows looked at for one page at most: a selector that matches little must not hold a reader long.
const SCAN_MAX: usize = 20_000;
/// Rows read at once.
const CHUNK: usize = 500;
/// Copies that wait for a person, of which a list says what to do.
const TROUBLES: usize = 10;
/// Bytes of bodies of a page, about: bounds the answer (I14).
const PAGE_BYTES: usize = 8 << 20;

/// Query of `GET /objects`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectQuery {
    kind: String,
    name: Option<String>,
    namespace: Option<String>,
    cluster: Option<String>,
    selector: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    cursor: Option<String>,
    #[serde(default)]
    bodies: bool,
    #[serde(default)]
    secrets: bool,
}

/// What a page is made by.
struct Search {
    gk: GroupKind,
    name: Option<String>,
    namespace: Option<String>,
    selector: LabelSelector,
    limit: usize,
    bodies: bool,
    /// None: values of Secrets stay readable.
    redact: Option<[u8; 32]>,
}

/// One page of objects.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ObjectQuery>,
) -> Result<Json<List<ObjectItem>>, ApiError> {
    if query.secrets {
        caller.authorised()?;
    }
    let selector = selector::parse(query.selector.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string(), "write it as for `kubectl -l`"))?;
    let cursor = query.cursor.as_deref().map(Cursor::parse).transpose()?;
    let digest_key = api.0.digest_key;
    let shared = api.clone();
    let page = api
        .0
        .readers
        .read(move |reader| {
            let clusters = all_clusters(reader)?;
            let store = |error: StoreError| ApiError::store(&error);
            let watches = reader.watches(None).map_err(store)?;
            let only = cluster_id(&clusters, query.cluster.as_deref())?;
            let kind = kinds::resolve(&shared.0.kinds, &clusters, &watches, &query.kind)?;
            let watched = kinds::watched_in(&kind, &clusters, &watches)?;
            let notes = notes(&kind, &clusters, only, &watched);
            let search = Search {
                gk: kind.gk.clone(),
                name: query.name,
                namespace: if kind.namespaced { query.namespace } else { None },
                selector,
                limit: query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX),
                bodies: query.bodies,
                redact: (!query.secrets).then_some(digest_key),
            };
            let first = cursor.is_none();
            let mut page = search.page(reader, &clusters, only, cursor).map_err(store)?;
            page.notes.splice(0..0, notes);
            if first {
                page.notes.extend(search.troubles(reader, &clusters, only).map_err(store)?);
            }
            Ok(page)
        })
        .await?;
    Ok(Json(page))
}

/// What the list cannot show, in sentences.
fn notes(kind: &Kind, clusters: &[ClusterRow], only: Option<ClusterId>, watched: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    let unwatched: Vec<&str> = clusters
        .iter()
        .filter(|row| only.is_none_or(|only| only == row.id))
        .map(|row| row.name.as_str())
        .filter(|name| !watched.iter().any(|watched| watched == name))
        .collect();
    if !unwatched.is_empty() {
        notes.push(format!("{} is not watched in {}", kind.gk, unwatched.join(", ")));
    }
    if !kind.also.is_empty() {
        let also: Vec<String> = kind.also.iter().map(ToString::to_string).collect();
        notes.push(format!("showing {}; the name also means {}", kind.gk, also.join(", ")));
    }
    notes
}

impl Search {
    fn page(
        &self,
        reader: &mut dyn Reader,
        clusters: &[ClusterRow],
        only: Option<ClusterId>,
        cursor: Option<Cursor>,
    ) -> Result<List<ObjectItem>, StoreError> {
        let mut page = List::new("ObjectList", Vec::new());
        let (mut scanned, mut bytes, mut unjudged) = (0_usize, 0_usize, 0_u64);
        'clusters: for cluster in clusters.iter().filter(|row| only.is_none_or(|only| only == row.id)) {
            let mut after = match &cursor {
                Some(cursor) if cluster.id.0 < cursor.cluster => continue,
                Some(cursor) if cluster.id.0 == cursor.cluster => {
                    Some((cursor.namespace.clone(), cursor.name.clone()))
                }
                _ => None,
            };
            loop {
                let start = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
                let rows = reader.objects(cluster.id, &self.gk, self.namespace.as_deref(), start, CHUNK)?;
                let last_chunk = rows.len() < CHUNK;
                for row in rows {
                    let here = (row.key.namespace.to_string(), row.key.name.to_string());
                    scanned += 1;
                    if self.name.as_deref().is_none_or(|name| name == row.key.name.as_ref()) {
                        let size = row.body.as_ref().map_or(0, bytes::Bytes::len);
                        match self.judge(reader, cluster, row)? {
                            Judged::Shown(item) => {
                                page.items.push(*item);
                                bytes += if self.bodies { size } else { 0 };
                            }
                            Judged::NotKnown => unjudged += 1,
                            Judged::No => {}
                        }
                    }
                    after = Some(here);
                    if page.items.len() >= self.limit || scanned >= SCAN_MAX || bytes >= PAGE_BYTES {
                        page.next = after.map(|(namespace, name)| {
                            Cursor { cluster: cluster.id.0, namespace, name }.to_string()
                        });
                        break 'clusters;
                    }
                }
                if last_chunk {
                    break;
                }
            }
        }
        if unjudged > 0 {
            page.notes.push(format!("{unjudged} objects whose labels are not held were left out"));
        }
        Ok(page)
    }

    /// Copies that wait for a person, also those that are not there: what failed, and what to do about it.
    fn troubles(
        &self,
        reader: &mut dyn Reader,
        clusters: &[ClusterRow],
        only: Option<ClusterId>,
    ) -> Result<Vec<String>, StoreError> {
        let filter = PlacementFilter {
            target: only,
            gk: Some(self.gk.clone()),
            states: vec![Standing::Failed, Standing::Blocked, Standing::Conflict, Standing::Held],
            ..PlacementFilter::default()
        };
        let rows = reader.placements(&filter, None, SCAN_MAX)?;
        let searched = |row: &&PlacementRow| {
            self.name.as_deref().is_none_or(|name| name == row.key.name.as_ref())
                && self.namespace.as_deref().is_none_or(|namespace| namespace == row.key.namespace.as_ref())
        };
        let mut found = rows.iter().filter(searched);
        let mut notes: Vec<String> =
            found.by_ref().take(TROUBLES).map(|row| trouble(row, clusters)).collect();
        match found.count() {
            0 => {}
            more => notes.push(format!("{more} more copies wait for a person: see `lockstep status`")),
        }
        Ok(notes)
    }

    fn judge(
        &self,
        reader: &mut dyn Reader,
        cluster: &ClusterRow,
        row: ObjectRow,
    ) -> Result<Judged, StoreError> {
        let body: Option<Value> = row.body.as_ref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let labels: Option<BTreeMap<String, String>> = body.as_ref().map(|body| {
            serde_json::from_value(body.pointer("/metadata/labels").cloned().unwrap_or_default())
                .unwrap_or_default()
        });
        if !self.selector.is_empty() {
            match &labels {
                None => return Ok(Judged::NotKnown),
                Some(labels) if !self.selector.matches(labels) => return Ok(Judged::No),
                Some(_) => {}
            }
        }
        let placed = reader.placement(cluster.id, &row.key)?;
        let (status, policy) =
            placed.map_or((None, None), |placed| (Some(placed.status), Some(placed.policy)));
        let created = body.as_ref().and_then(|body| body.pointer("/metadata/creationTimestamp"));
        let created = created.and_then(Value::as_str).map(ToOwned::to_owned);
        let body_held = body.is_some();
        let ObjectRow { key, uid, resource_version, managed, deleting, observed_at, .. } = row;
        let ObjectKey { gk, namespace, name } = key;
        let mut body = body.filter(|_| self.bodies);
        if let (Some(body), Some(digest_key)) = (&mut body, &self.redact)
            && redact::is_secret(&gk.group, &gk.kind)
        {
            redact::redact(body, digest_key);
        }
        Ok(Judged::Shown(Box::new(ObjectItem {
            cluster: cluster.name.to_string(),
            group: gk.group.to_string(),
            kind: gk.kind.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            uid: uid.to_string(),
            resource_version: resource_version.to_string(),
            created,
            labels,
            observed_at_ms: observed_at,
            deleting,
            body_held,
            managed: managed.is_some(),
            status,
            policy,
            body,
        })))
    }
}

/// One copy that waits for a person, in a sentence.
fn trouble(row: &PlacementRow, clusters: &[ClusterRow]) -> String {
    let Status { state, reason, message } = &row.status;
    let target = cluster_name(clusters, row.target);
    let ObjectKey { namespace, name, .. } = &row.key;
    let slash = if namespace.is_empty() { "" } else { "/" };
    let mut text = format!("{namespace}{slash}{name} at {target}: {state} ({reason})");
    for part in [advice::meaning(&row.status), Some(message.as_str())].into_iter().flatten() {
        text.push_str(&format!(": {part}"));
    }
    if let Some(remedy) = advice::remedy(*state, reason, &row.policy, &target) {
        text.push_str(&format!("; to do: {remedy}"));
    }
    text
}

enum Judged {
    Shown(Box<ObjectItem>),
    /// Its labels are not held.
    NotKnown,
    No,
}

/// Where a page goes on: `cluster/namespace/name`; none of these holds a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) cluster: u32,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let mut parts = text.splitn(3, '/');
        let cluster = parts.next().and_then(|part| part.parse().ok());
        match (cluster, parts.next(), parts.next()) {
            (Some(cluster), Some(namespace), Some(name)) => {
                Ok(Self { cluster, namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(ApiError::bad_request(
                "`continue` is not what a list gave",
                "pass the value of `continue` of the page before, unchanged",
            )),
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.name)
    }
}
