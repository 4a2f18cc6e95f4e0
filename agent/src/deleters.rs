//! Who asked for deletes, as webhooks of the API server tell it: out of audit events and admission reviews,
//! into a bounded queue, to the hub. It never gates a delete.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_engine::{Millis, rfc3339};
use lockstep_wire::v1::Deleter;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Deleters that wait for the hub; beyond it the oldest go. A namespace of some thousand objects fits.
const WAITING: usize = 16_384;
/// Deleters in one message.
pub(crate) const AT_ONCE: usize = 512;
/// Longest text that is taken of a review or event: longer than any name that Kubernetes allows.
const LONGEST: usize = 512;

/// What a review or audit event cannot be read for.
#[derive(Debug, thiserror::Error)]
#[error("not {expected}: {category} at line {line} column {column}")]
pub struct Unreadable {
    expected: &'static str,
    category: &'static str,
    line: usize,
    column: usize,
}

impl Unreadable {
    /// Positions only: a review may hold a Secret (I13).
    fn new(expected: &'static str, error: &serde_json::Error) -> Self {
        let category = if error.is_data() { "a field is missing or of another type" } else { "bad JSON" };
        Self { expected, category, line: error.line(), column: error.column() }
    }
}

/// How many came, went to the hub, and were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) enqueued: u64,
    pub(crate) dequeued: u64,
    pub(crate) dropped: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Deleter>,
    counters: Counters,
}

/// The queue between the receiver of webhooks and the session. Cheap to clone; without a receiver it is empty.
#[derive(Clone, Debug, Default)]
pub struct Deleters {
    queue: Arc<Mutex<Queue>>,
    came: Arc<Notify>,
}

impl Deleters {
    /// Takes a list of audit events (`audit.k8s.io/v1`), as API servers send them in batches.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn audited(&self, body: &[u8], now: Millis) -> Result<(), Unreadable> {
        self.push(of_events(body, now)?);
        Ok(())
    }

    /// Takes an AdmissionReview (`admission.k8s.io/v1`), and gives the answer: allowed, whatever it says.
    ///
    /// # Errors
    /// When it is no such review.
    pub fn reviewed(&self, body: &[u8], now: Millis) -> Result<Value, Unreadable> {
        let (uid, deleter) = of_review(body, now)?;
        self.push(deleter);
        Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": uid, "allowed": true}}))
    }

    fn push(&self, deleters: impl IntoIterator<Item = Deleter>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for deleter in deleters {
            queue.counters.enqueued += 1;
            if queue.waiting.len() == WAITING {
                queue.waiting.pop_front();
                queue.counters.dropped += 1;
            }
            queue.waiting.push_back(deleter);
        }
        drop(queue);
        self.came.notify_one();
    }

    /// Waits until some came.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    /// Takes the oldest, at most so many as go into one message.
    pub(crate) fn take(&self) -> Vec<Deleter> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queue.waiting.len().min(AT_ONCE);
        queue.counters.dequeued += count as u64;
        queue.waiting.drain(..count).collect()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).counters
    }
}

#[derive(Deserialize)]
struct EventList {
    #[serde(default)]
    items: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    stage: String,
    #[serde(default)]
    verb: String,
    #[serde(default, rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    request_received_timestamp: Option<String>,
    #[serde(default)]
    user: User,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    request_object: Option<Options>,
    #[serde(default)]
    response_object: Option<Response>,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    api_group: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// DeleteOptions.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    dry_run: Vec<String>,
}

/// A Status with the uid of what went, or the object itself.
#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    details: Option<Named>,
    #[serde(default)]
    metadata: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
    uid: String,
}

fn of_events(body: &[u8], now: Millis) -> Result<Vec<Deleter>, Unreadable> {
    let list: EventList =
        serde_json::from_slice(body).map_err(|error| Unreadable::new("a list of audit events", &error))?;
    Ok(list.items.into_iter().filter_map(|event| of_event(event, now)).collect())
}

/// Who asked, where it is an event of a delete that was carried out.
fn of_event(event: Event, now: Millis) -> Option<Deleter> {
    let carried_out =
        event.stage == "ResponseComplete" && (200..300).contains(&event.response_status.as_ref()?.code);
    let dry = event.request_uri.contains("dryRun=")
        || event.request_object.is_some_and(|options| !options.dry_run.is_empty());
    let of = event.object_ref?;
    // Of a collection with a selector nobody can tell from the event which objects were meant.
    let meant = match event.verb.as_str() {
        "delete" => !of.name.is_empty(),
        "deletecollection" => {
            !["labelSelector=", "fieldSelector="].iter().any(|s| event.request_uri.contains(s))
        }
        _ => false,
    };
    if !carried_out || dry || !meant || !of.subresource.is_empty() {
        return None;
    }
    let answered = event.response_object.and_then(|response| {
        let told = [response.details, response.metadata].into_iter().flatten();
        told.map(|named| named.uid).find(|uid| !uid.is_empty())
    });
    let at = event.request_received_timestamp.as_deref().and_then(rfc3339::parse);
    bounded(Deleter {
        group: of.api_group,
        resource: of.resource,
        namespace: of.namespace,
        uid: if of.name.is_empty() { String::new() } else { answered.unwrap_or(of.uid) },
        name: of.name,
        user: event.user.username,
        asked_ms: at.map_or(now, |at| at.min(now)),
    })
}

#[derive(Deserialize)]
struct Review {
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    resource: Resource,
    /// What the client named, where the webhook is registered for another group or version of it.
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    user_info: User,
    #[serde(default)]
    old_object: Option<Old>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    group: String,
    resource: String,
}

#[derive(Deserialize)]
struct Old {
    #[serde(default)]
    metadata: Named,
}

/// The review's own uid, and who asked, where it is for a delete. Of a collection there is one review per object,
/// which names it in the old object only.
fn of_review(body: &[u8], now: Millis) -> Result<(String, Option<Deleter>), Unreadable> {
    let Review { request } =
        serde_json::from_slice(body).map_err(|error| Unreadable::new("an AdmissionReview", &error))?;
    let real =
        request.operation == "DELETE" && request.dry_run != Some(true) && request.sub_resource.is_empty();
    let old = request.old_object.map(|old| old.metadata).unwrap_or_default();
    let name = if old.name.is_empty() { request.name } else { old.name };
    let namespace = if old.namespace.is_empty() { request.namespace } else { old.namespace };
    let deleter = Deleter {
        group: request.resource.group,
        // A Namespace is told as if it lay within itself.
        namespace: if request.resource.resource == "namespaces" { String::new() } else { namespace },
        resource: request.resource.resource,
        name,
        uid: old.uid,
        user: request.user_info.username,
        asked_ms: now,
    };
    let named = real && !deleter.name.is_empty();
    Ok((request.uid, Some(deleter).filter(|_| named).and_then(bounded)))
}

fn bounded(deleter: Deleter) -> Option<Deleter> {
    let Deleter { group, resource, namespace, name, uid, user, asked_ms: _ } = &deleter;
    let fits = [group, resource, namespace, name, uid, user].iter().all(|text| text.len() <= LONGEST);
    (fits && !user.is_empty() && !resource.is_empty()).then_some(deleter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(change: impl FnOnce(&mut Value)) -> Vec<Deleter> {
        let mut event = json!({
            "stage": "ResponseComplete", "verb": "delete",
            "requestURI": "/apis/apps/v1/namespaces/shop/deployments/web",
            "requestReceivedTimestamp": "1970-01-01T00:00:05.000000Z",
            "user": {"username": "jane"},
            "objectRef": {"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps"},
            "responseStatus": {"code": 200},
        });
        change(&mut event);
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [event]});
        of_events(&serde_json::to_vec(&list).unwrap(), 9_000).unwrap()
    }

    fn web(uid: &str) -> Deleter {
        Deleter {
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: uid.into(),
            user: "jane".into(),
            asked_ms: 5_000,
        }
    }

    #[test]
    fn an_audit_event_of_a_delete_that_was_carried_out_tells_who() {
        assert_eq!(event(|_| {}), [web("")]);
        let details = json!({"kind": "Status", "details": {"name": "web", "uid": "u"}});
        assert_eq!(event(|event| event["responseObject"] = details), [web("u")]);
        let object = json!({"kind": "Deployment", "metadata": {"name": "web", "uid": "u"}});
        assert_eq!(event(|event| event["responseObject"] = object), [web("u")]);
        let collection = event(|event| {
            event["verb"] = "deletecollection".into();
            event["objectRef"]["name"] = "".into();
        });
        assert_eq!(collection, [Deleter { name: String::new(), ..web("") }]);
        let late = event(|event| event["requestReceivedTimestamp"] = "2030-01-01T00:00:00Z".into());
        assert_eq!(late[0].asked_ms, 9_000, "nobody asks in the future");
    }

    #[test]
    fn what_deleted_nothing_tells_nobody() {
        let set = |pointer: &str, value: Value| {
            event(|event| {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                event.pointer_mut(parent).unwrap()[name] = value;
            })
        };
        for (pointer, value) in [
            ("/stage", "RequestReceived".into()),
            ("/verb", "patch".into()),
            ("/responseStatus/code", 404.into()),
            ("/responseStatus/code", 409.into()),
            ("/requestURI", "/apis/apps/v1/namespaces/shop/deployments/web?dryRun=All".into()),
            ("/requestObject", json!({"kind": "DeleteOptions", "dryRun": ["All"]})),
            ("/objectRef/subresource", "status".into()),
            ("/user/username", "".into()),
            ("/user/username", "x".repeat(LONGEST + 1).into()),
        ] {
            assert_eq!(set(pointer, value.clone()), [], "{pointer} {value}");
        }
        let selected = event(|event| {
            event["verb"] = "deletecollection".into();
            event["requestURI"] = "/apis/apps/v1/namespaces/shop/deployments?labelSelector=a%3Db".into();
        });
        assert_eq!(selected, [], "which ones it means nobody can tell");
    }

    fn review(change: impl FnOnce(&mut Value)) -> Value {
        let mut review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "review", "operation": "DELETE", "dryRun": false, "name": "", "namespace": "shop",
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "userInfo": {"username": "jane", "groups": ["g"]},
            "object": null, "oldObject": {"metadata": {"name": "web", "namespace": "shop", "uid": "u"}},
        }});
        change(&mut review["request"]);
        review
    }

    #[test]
    fn a_review_is_always_allowed_and_one_of_a_delete_tells_who() {
        let ask = |change: fn(&mut Value)| {
            let deleters = Deleters::default();
            let answer = deleters.reviewed(review(change).to_string().as_bytes(), 5_000).unwrap();
            assert_eq!(answer["response"], json!({"uid": "review", "allowed": true}));
            deleters.take()
        };
        assert_eq!(ask(|_| {}), [web("u")]);
        assert_eq!(ask(|request| request["dryRun"] = true.into()), []);
        assert_eq!(ask(|request| request["operation"] = "UPDATE".into()), []);
        assert_eq!(ask(|request| request["subResource"] = "status".into()), []);
        let namespace = ask(|request| {
            request["resource"] = json!({"group": "", "version": "v1", "resource": "namespaces"});
            request["oldObject"] = json!({"metadata": {"name": "shop", "uid": "n"}});
        });
        assert_eq!((namespace[0].namespace.as_str(), namespace[0].name.as_str()), ("", "shop"));
    }

    #[test]
    fn i14_the_queue_is_bounded_and_drops_the_oldest() {
        let deleters = Deleters::default();
        deleters.push((0..WAITING + 3).map(|n| Deleter { name: n.to_string(), ..web("u") }));
        assert_eq!(deleters.counters().dropped, 3);
        let taken = deleters.take();
        assert_eq!((taken.len(), taken[0].name.as_str()), (AT_ONCE, "3"));
        let (enqueued, dequeued) = ((WAITING + 3) as u64, AT_ONCE as u64);
        assert_eq!(deleters.counters(), Counters { enqueued, dequeued, dropped: 3 });
    }

    #[test]
    fn i13_what_cannot_be_read_is_not_quoted() {
        let deleters = Deleters::default();
        let broken = br#"{"request": {"uid": "u", "oldObject": {"metadata": "canary"}}}"#;
        let error = deleters.reviewed(broken, 0).unwrap_err().to_string();
        assert!(error.contains("AdmissionReview") && !error.contains("canary"), "{error}");
        assert!(deleters.audited(b"[canary", 0).is_err());
    }
}
