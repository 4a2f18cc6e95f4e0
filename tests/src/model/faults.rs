//! Faults that a test asks for: refusals, broken connections, delays, watches that go silent.

use super::http::{Request, Response, Route, Target, route};
use super::server::{ApiServer, Millis};
use super::status::ApiError;

/// Which requests a fault is about; what is empty matches all.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// As in `get`, `list`, `watch`, `create`, `update`, `apply`, `patch`, `delete`, `discovery`.
    pub verbs: Vec<String>,
    /// API groups; the core group is the empty text in the list.
    pub groups: Vec<String>,
    /// Plural resources.
    pub resources: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Users.
    pub users: Vec<String>,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Answers so; nothing happens.
    Answer {
        /// HTTP status.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after_s: Option<u32>,
    },
    /// The connection breaks before anything happened.
    DropBefore,
    /// The request takes effect, and the connection breaks before the answer. Streams end.
    DropAfter,
    /// The reply comes this much later, ms. The effect does not.
    Delay(u64),
    /// Watches stay open and say nothing, not even that they end. What happens meanwhile comes when it is over.
    Silence,
}

/// A fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests.
    pub matches: Matcher,
    /// What happens to them.
    pub effect: Effect,
    /// Until this time (not including it); none: until it is taken away.
    pub until: Option<Millis>,
    /// So many times; none: always.
    pub times: Option<u32>,
}

/// Identifies a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u64);

impl Matcher {
    pub(crate) fn matches(&self, verb: &str, user: &str, target: &Target) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        any(&self.verbs, verb)
            && any(&self.groups, &target.group)
            && any(&self.resources, &target.plural)
            && any(&self.namespaces, &target.namespace)
            && any(&self.users, user)
    }
}

/// What a request is called, and what it is about.
pub(crate) fn verb_of(request: &Request) -> (&'static str, Target) {
    let Route::Resource(target) = route(&request.path) else { return ("discovery", Target::default()) };
    let collection = target.name.is_empty();
    let verb = match (request.method.as_str(), collection) {
        ("GET", true) if request.parameters().is_true("watch") => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) if request.content_type.starts_with(super::patch::APPLY) => "apply",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "other",
    };
    (verb, target)
}

impl ApiServer {
    /// Injects a fault. Of several that match, the newest acts.
    pub fn inject(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.next_id());
        self.faults.insert(id, fault);
        id
    }

    /// Takes a fault away.
    pub fn heal(&mut self, id: FaultId) {
        self.faults.remove(&id);
    }

    /// Takes all faults away.
    pub fn heal_all(&mut self) {
        self.faults.clear();
    }

    /// A group whose aggregated API server is away (503 for discovery and everything in it), or back.
    pub fn set_group_down(&mut self, group: &str, down: bool) {
        if down {
            self.down.insert(group.to_owned());
        } else {
            self.down.remove(group);
        }
    }

    /// The fault that acts on a request; it counts as used.
    pub(crate) fn fault(&mut self, now: Millis, verb: &str, user: &str, target: &Target) -> Option<Effect> {
        self.faults.retain(|_, fault| fault.until.is_none_or(|until| now < until) && fault.times != Some(0));
        let (_, fault) = self.faults.iter_mut().rev().find(|(_, fault)| {
            fault.effect != Effect::Silence && fault.matches.matches(verb, user, target)
        })?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.effect)
    }

    /// Is a watch silenced?
    pub(crate) fn is_silenced(&self, now: Millis, user: &str, target: &Target) -> bool {
        self.faults.values().any(|fault| {
            fault.effect == Effect::Silence
                && fault.until.is_none_or(|until| now < until)
                && fault.matches.matches("watch", user, target)
        })
    }
}

/// The response of a fault that lets nothing happen.
pub(crate) fn refusal(effect: Effect) -> Option<Result<Response, ApiError>> {
    match effect {
        Effect::Answer { code, retry_after_s } => Some(Err(ApiError::injected(code, retry_after_s))),
        Effect::DropBefore => Some(Ok(Response::Dropped)),
        Effect::DropAfter | Effect::Delay(_) | Effect::Silence => None,
    }
}
