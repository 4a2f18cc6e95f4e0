//! Who may do what: everybody everything, except what a rule forbids.

use super::http::Target;
use super::server::ApiServer;
use super::status::{About, ApiError};

/// What a user may not do; an empty list means all. Withdrawing a right is adding a rule.
#[derive(Debug, Clone, Default)]
pub struct Forbid {
    /// The user.
    pub user: String,
    /// As in `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verbs: Vec<String>,
    /// Plural resources.
    pub resources: Vec<String>,
    /// Namespaces; requests for all namespaces are forbidden only by rules without any.
    pub namespaces: Vec<String>,
    /// Nobody knows this user any more: 401 for every request.
    pub unknown: bool,
}

/// Identifies a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForbidId(u64);

impl Forbid {
    fn covers(&self, user: &str, verb: &str, target: &Target) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        self.user == user
            && any(&self.verbs, verb)
            && any(&self.resources, &target.plural)
            && any(&self.namespaces, &target.namespace)
    }
}

impl ApiServer {
    /// Forbids something until [`Self::allow`].
    pub fn forbid(&mut self, rule: Forbid) -> ForbidId {
        let id = ForbidId(self.next_id());
        self.forbidden.insert(id, rule);
        id
    }

    /// Allows again what a rule forbade.
    pub fn allow(&mut self, id: ForbidId) {
        self.forbidden.remove(&id);
    }

    pub(crate) fn authenticated(&self, user: &str) -> Result<(), ApiError> {
        let unknown = self.forbidden.values().any(|rule| rule.unknown && rule.user == user);
        if unknown { Err(ApiError::unauthorized()) } else { Ok(()) }
    }

    pub(crate) fn authorized(&self, user: &str, verb: &str, target: &Target) -> Result<(), ApiError> {
        if !self.forbidden.values().any(|rule| !rule.unknown && rule.covers(user, verb, target)) {
            return Ok(());
        }
        let scope = if target.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", target.namespace)
        };
        let why = format!(
            "User {user:?} cannot {verb} resource {:?} in API group {:?} {scope}",
            target.plural, target.group
        );
        let about = About { group: &target.group, kind: &target.plural, name: &target.name };
        Err(ApiError::forbidden(about, &why))
    }
}
