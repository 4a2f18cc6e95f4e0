//! Bringing back what was deleted. `lockstep_engine::restore` decides; this looks at what it has to
//! know, has the API server check what it would write, writes the restore down, and carries it out
//! through the agent of that cluster.
//!
//! A plan is shown with a digest. What is carried out is what was shown: where the plan differs by then,
//! nothing is written, and the new one is the answer. While a restore runs it is planned again and again
//! from what is there, so that a lost answer, an agent that left or a hub that was killed need no rule of
//! their own: what is there as it should be counts as done.

mod run;
mod select;
mod survey;
mod view;

use std::sync::Arc;

use lockstep_engine::restore::{Item, Options, RestorePlan};
use lockstep_engine::{ClusterId, ObjectKey};
use lockstep_wire::v1::outcome::Result as Answer;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};

pub use view::{MissingItem, PlanItem, PlanView, RestoreItem, RestoreView};

use crate::codes::Code;
use crate::core::command::{Command, CommandError, Question, Reply, RestoreCommand};
use crate::http::Bodies;
use crate::session::Readers;
use crate::store::restores::{ItemState, RestoreItemRow, RestoreRow};
use crate::store::{Reader, StoreError};

/// Codes of this part.
pub const CODES: &[Code] = &[
    Code { code: "LS0280", title: "the agent cannot be asked" },
    Code { code: "LS0281", title: "there is nothing to restore by that name" },
    Code { code: "LS0282", title: "the restore is not what was shown" },
    Code { code: "LS0283", title: "the restore meets conflicts" },
    Code { code: "LS0284", title: "a restore of the same objects is under way" },
    Code { code: "LS0285", title: "the restore cannot be asked for like that" },
];

/// Objects of one restore: more than the largest namespaces hold, and their bodies fit into memory.
const MAX_OBJECTS: usize = 10_000;

/// What is to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    /// These tombstones.
    Tombstones(Vec<i64>),
    /// All that one act deleted.
    Act(i64),
    /// The newest tombstone of an object.
    #[serde(rename_all = "camelCase")]
    Object {
        /// As kubectl takes it.
        kind: String,
        /// Empty: none, or `default`.
        #[serde(default)]
        namespace: String,
        /// Its name.
        name: String,
        /// Deleted in this cluster; where it was deleted in one only, that one.
        #[serde(default)]
        from: Option<String>,
    },
}

/// `POST /restores`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreRequest {
    /// What.
    pub selection: Selection,
    /// Where to; its own cluster where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// How.
    #[serde(default)]
    pub options: Options,
    /// Without asking the API server what it would say.
    #[serde(default)]
    pub unchecked: bool,
    /// Carry out the plan with this digest; none: only plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// Who asks, for the record.
    #[serde(default)]
    pub asked_by: String,
}

/// A plan for a cluster.
pub(crate) struct Draft {
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    pub(crate) plan: RestorePlan,
}

/// What came of asking for a restore.
pub(crate) enum Asked {
    /// A plan.
    Plan(PlanView),
    /// It is not what was shown: the plan as it is now.
    Changed(PlanView),
    /// It is under way under this number.
    Begun(i64),
}

pub(super) fn refused(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> CommandError {
    CommandError { code: code.to_owned(), message: message.into(), remedy: remedy.into() }
}

/// Plans restores and carries them out. Cheap to clone.
#[derive(Clone)]
pub struct Restorer(Arc<Inner>);

struct Inner {
    readers: Readers,
    commands: mpsc::Sender<Command>,
    bodies: Arc<dyn Bodies>,
    digest_key: [u8; 32],
    /// There is a new one.
    wake: Notify,
}

impl Restorer {
    /// A restorer that knows of none yet.
    #[must_use]
    pub fn new(
        readers: Readers,
        commands: mpsc::Sender<Command>,
        bodies: Arc<dyn Bodies>,
        digest_key: [u8; 32],
    ) -> Self {
        Self(Arc::new(Inner { readers, commands, bodies, digest_key, wake: Notify::new() }))
    }

    /// Plans, and carries out what was shown, if that is asked for.
    pub(crate) async fn handle(&self, request: RestoreRequest) -> Result<Asked, CommandError> {
        let RestoreRequest { selection, cluster, options, unchecked, shown, asked_by } = request;
        select::check(&options, &selection)?;
        let selected = self.select(&selection, cluster.as_deref(), MAX_OBJECTS).await?;
        let mut draft = self.survey(&selected, &options).await?;
        if !unchecked {
            self.check(&mut draft).await?;
        }
        let view = view::plan(&draft, &self.0.digest_key);
        let Some(shown) = shown else { return Ok(Asked::Plan(view)) };
        if shown != view.digest {
            return Ok(Asked::Changed(view));
        }
        let stops = options.on_conflict == lockstep_engine::restore::OnConflict::Fail;
        if let Some(stop) = draft.plan.items.iter().find(|item| stops && item.verdict.stops()) {
            return Err(refused(
                "LS0283",
                format!("nothing was written: {}: {}", stop.key, stop.why),
                "mend it, or choose --on-conflict skip, update, recreate or rename",
            ));
        }
        let items = draft.plan.items.iter().enumerate().map(|(at, item)| item_row(at, item)).collect();
        let row =
            RestoreRow { id: 0, cluster: draft.cluster, asked_by, asked_at: 0, options, ended_at: None };
        let id = self.command(|reply| RestoreCommand::Begin { row, items, reply }).await?;
        tracing::info!(restore = id, cluster = draft.name, "a restore begins");
        self.0.wake.notify_one();
        Ok(Asked::Begun(id))
    }

    /// Restores, the newest first.
    pub(crate) async fn list(&self, limit: usize) -> Result<Vec<RestoreView>, CommandError> {
        self.read(move |reader| {
            let names = select::cluster_names(reader)?;
            let rows = reader.restores(false, limit)?;
            rows.into_iter()
                .map(|row| Ok(view::restore(&row, &reader.restore_items(row.id)?, &names, false)))
                .collect()
        })
        .await
    }

    /// One restore, with its objects.
    pub(crate) async fn show(&self, id: i64) -> Result<Option<RestoreView>, CommandError> {
        self.read(move |reader| {
            let names = select::cluster_names(reader)?;
            let Some(row) = reader.restore(id)? else { return Ok(None) };
            Ok(Some(view::restore(&row, &reader.restore_items(id)?, &names, true)))
        })
        .await
    }

    /// Asks the agent of a cluster.
    async fn ask(
        &self,
        cluster: ClusterId,
        key: &ObjectKey,
        question: Question,
    ) -> Result<Answer, CommandError> {
        let key = key.clone();
        self.command(|reply| RestoreCommand::Ask { cluster, key, question, reply }).await
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> RestoreCommand) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || refused("LS0259", "the hub is stopping", "try again in a moment");
        self.0.commands.send(Command::Restore(command(reply))).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| {
            Err(refused(
                "LS0280",
                "the agent left before it answered",
                "see `lockstep clusters`, and try again",
            ))
        })
    }

    /// Reads the store, on a thread where that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, CommandError> {
        let readers = Arc::clone(&self.0.readers);
        let failed = |why: String| refused("LS0258", why, "see the hub's log");
        let task = tokio::task::spawn_blocking(move || work((readers)()?.as_mut()));
        let result = task.await.map_err(|_| failed("a read ended abnormally".to_owned()))?;
        result.map_err(|error| failed(error.to_string()))
    }
}

fn item_row(position: usize, item: &Item) -> RestoreItemRow {
    let state = if item.verdict.writes() { ItemState::Planned } else { ItemState::Left };
    RestoreItemRow {
        restore: 0,
        position: u32::try_from(position).unwrap_or(u32::MAX),
        tombstone: item.tombstone,
        key: item.key.clone(),
        dependency: item.dependency,
        verdict: item.verdict,
        state,
        message: item.why.clone(),
        replaced: None,
    }
}
