//! Calls that the core answers: explain, compare, approve, orphan, accept-rewind, remove-cluster, pause, resume, tokens.

use axum::Json;
use axum::extract::State;
use lockstep_engine::ClusterName;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::error::ApiError;
use super::params::{Params, Raw, all_clusters, body, find_cluster};
use super::types::{
    AcceptRewindRequest, AcceptedRewind, ApproveRequest, Approved, ClusterRemoval, Comparison, Done,
    Explanation, List, ObjectRef, OrphanRequest, PauseRequest, PauseScope, Releasing, RemoveClusterRequest,
    TokenAnswer, TokenRequest,
};
use super::{Api, kinds};
use crate::core::command::{Approval, Command, Reply};

/// Namespace of a namespaced kind when none is named, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// Query of `GET /explain` and `GET /compare`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectQuery {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
    cluster: Option<String>,
}

impl Api {
    /// Sends a command to the core and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).await.map_err(|_| ApiError::stopping())?;
        Ok(answer.await.map_err(|_| ApiError::stopping())??)
    }

    /// The object that a query means, its kind in full. What cannot be resolved stays as typed:
    /// the core says why it knows nothing of it.
    async fn object(&self, query: ObjectQuery) -> Result<ObjectRef, ApiError> {
        let api = self.clone();
        self.0
            .readers
            .read(move |reader| {
                let clusters = all_clusters(reader)?;
                if let Some(cluster) = &query.cluster {
                    find_cluster(&clusters, cluster)?;
                }
                let watches = reader.watches(None).map_err(|error| ApiError::store(&error))?;
                let kind = kinds::resolve(&api.0.kinds, &clusters, &watches, &query.kind)?;
                let namespace = match (kind.namespaced, query.namespace.as_str()) {
                    (false, _) => String::new(),
                    (true, "") => DEFAULT_NAMESPACE.to_owned(),
                    (true, named) => named.to_owned(),
                };
                let (name, cluster) = (query.name, query.cluster);
                Ok(ObjectRef { kind: kind.gk.to_string(), namespace, name, cluster })
            })
            .await
    }
}

/// Why an object is where it is, or is not.
pub(super) async fn explain(
    State(api): State<Api>,
    Params(query): Params<ObjectQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let object = api.object(query).await?;
    api.ask(|reply| Command::Explain { object, reply }).await.map(Json)
}

/// Desired against observed.
pub(super) async fn compare(
    State(api): State<Api>,
    Params(query): Params<ObjectQuery>,
) -> Result<Json<Comparison>, ApiError> {
    if query.cluster.is_none() {
        return Err(ApiError::bad_request("`cluster` is missing", "name the target to compare with"));
    }
    let object = api.object(query).await?;
    api.ask(|reply| Command::Compare { object, reply }).await.map(Json)
}

/// Releases held deletes.
pub(super) async fn approve(
    State(api): State<Api>,
    Raw(bytes): Raw,
) -> Result<Json<List<Approved>>, ApiError> {
    let ApproveRequest { policy, target, dry_run, shown } = body(&bytes)?;
    let how = match (dry_run, shown) {
        (true, _) => Approval::DryRun,
        (false, Some(digest)) => Approval::AsShown(digest),
        (false, None) => Approval::Whatever,
    };
    let released = api.ask(|reply| Command::Approve { policy, target, how, reply }).await?;
    Ok(Json(List::new("ApprovedList", released)))
}

/// Lets go of copies.
pub(super) async fn orphan(
    State(api): State<Api>,
    Raw(bytes): Raw,
) -> Result<Json<List<Releasing>>, ApiError> {
    let OrphanRequest { scope, dry_run } = body(&bytes)?;
    let releasing = api.ask(|reply| Command::Orphan { scope, dry_run, reply }).await?;
    Ok(Json(List::new("ReleasingList", releasing)))
}

/// Takes what a cluster lost in a rewind for deleted.
pub(super) async fn accept_rewind(
    State(api): State<Api>,
    Raw(bytes): Raw,
) -> Result<Json<AcceptedRewind>, ApiError> {
    let AcceptRewindRequest { cluster } = body(&bytes)?;
    api.ask(|reply| Command::AcceptRewind { cluster, reply }).await.map(Json)
}

/// Removes a cluster that is gone for good.
pub(super) async fn remove_cluster(
    State(api): State<Api>,
    Raw(bytes): Raw,
) -> Result<Json<ClusterRemoval>, ApiError> {
    let RemoveClusterRequest { cluster, dry_run } = body(&bytes)?;
    api.ask(|reply| Command::RemoveCluster { cluster, dry_run, reply }).await.map(Json)
}

/// Pauses.
pub(super) async fn pause(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<Done>, ApiError> {
    set_paused(&api, &bytes, true).await
}

/// Resumes.
pub(super) async fn resume(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<Done>, ApiError> {
    set_paused(&api, &bytes, false).await
}

async fn set_paused(api: &Api, bytes: &[u8], paused: bool) -> Result<Json<Done>, ApiError> {
    let PauseRequest { scope } = body(bytes)?;
    let what = match &scope {
        PauseScope::Policy(name) => format!("policy {name}"),
        PauseScope::Cluster(name) => format!("cluster {name}"),
        PauseScope::Everything => "everything".to_owned(),
    };
    api.ask(|reply| Command::Pause { scope, paused, reply }).await?;
    let message = format!("{what} {}", if paused { "paused" } else { "resumed" });
    Ok(Json(Done { message }))
}

/// Makes a bearer token for a member cluster.
pub(super) async fn token(State(api): State<Api>, Raw(bytes): Raw) -> Result<Json<TokenAnswer>, ApiError> {
    let TokenRequest { cluster } = body(&bytes)?;
    let cluster = ClusterName::new(&cluster)
        .map_err(|error| ApiError::bad_request(error.to_string(), "choose a name like `prod-eu-1`"))?;
    let name = cluster.to_string();
    let token = api.ask(|reply| Command::CreateToken { cluster, reply }).await?;
    Ok(Json(TokenAnswer { cluster: name, token }))
}
