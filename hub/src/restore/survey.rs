//! Looks at what the planner has to know, through the agent of the destination; then has the API server
//! check what would be written.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt, TryStreamExt};
use lockstep_engine::outcome::FailureClass;
use lockstep_engine::restore::{self, Item, Live, Options, Place, Planned, Served, Situation, Verdict};
use lockstep_engine::{ClusterId, ObjectKey};
use lockstep_wire::v1::{self, outcome::Result as Answer, restore::Expect};

use super::select::Selected;
use super::{Draft, Restorer, refused};
use crate::core::command::{CommandError, Question};
use crate::core::state::decode_served;

/// Questions to one agent at a time; it goes by what its API server takes.
const AT_ONCE: usize = 16;
/// Rounds of looking. Dependencies of dependencies take two each.
const MAX_ROUNDS: usize = 32;

impl Restorer {
    /// Plans, looking until there is a plan.
    pub(super) async fn survey(&self, selected: &Selected, options: &Options) -> Result<Draft, CommandError> {
        let Selected { from, to, kept } = selected;
        let served = decode_served(&to.served).unwrap_or_default().into_iter();
        let mut situation = Situation {
            same_cluster: *from == to.id,
            served: served
                .map(|(gk, kind)| (gk, Served { versions: kind.versions, namespaced: kind.namespaced }))
                .collect(),
            ..Situation::default()
        };
        for _ in 0..MAX_ROUNDS {
            let needs = match restore::plan(kept, options, &situation) {
                Planned::Plan(plan) => return Ok(Draft { cluster: to.id, name: to.name.to_string(), plan }),
                Planned::Needs(needs) => needs,
            };
            situation.places.extend(self.places(to.id, needs.places).await?);
            situation.kept.extend(self.newest(*from, needs.kept).await?);
        }
        Err(refused(
            "LS0285",
            "what it needs has no end",
            "restore fewer objects at once, or without dependencies",
        ))
    }

    async fn places(
        &self,
        cluster: ClusterId,
        keys: BTreeSet<ObjectKey>,
    ) -> Result<Vec<(ObjectKey, Place)>, CommandError> {
        let asked = keys.clone();
        let policies: Vec<Option<String>> = self
            .read(move |reader| {
                let mut policies = Vec::new();
                for key in asked {
                    let placement = reader.placement(cluster, &key)?;
                    policies.push(placement.filter(|row| row.ending.is_none()).map(|row| row.policy));
                }
                Ok(policies)
            })
            .await?;
        stream::iter(keys.into_iter().zip(policies))
            .map(|(key, policy)| async move {
                let live = self.live(cluster, &key).await?;
                Ok((key, Place { live, policy }))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn live(&self, cluster: ClusterId, key: &ObjectKey) -> Result<Live, CommandError> {
        Ok(match self.ask(cluster, key, Question::Read).await? {
            Answer::Gone(_) => Live::Absent,
            Answer::Image(image) => match serde_json::from_slice(&image.body) {
                Ok(body) => Live::Present(body),
                Err(_) => Live::Unknown("the answer is no JSON".to_owned()),
            },
            Answer::Failed(failed) => Live::Unknown(failed.text()),
            _ => Live::Unknown("the agent gave another answer than was asked for".to_owned()),
        })
    }

    /// Has the API server check every write that it can check now.
    pub(super) async fn check(&self, draft: &mut Draft) -> Result<(), CommandError> {
        let cluster = draft.cluster;
        let items = std::mem::take(&mut draft.plan.items);
        draft.plan.items = stream::iter(items)
            .map(|item| self.checked(cluster, item))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(())
    }

    async fn checked(&self, cluster: ClusterId, mut item: Item) -> Result<Item, CommandError> {
        let created = matches!(item.verdict, Verdict::Create | Verdict::Rename);
        if item.untried || !(created || item.verdict == Verdict::Update) {
            return Ok(item);
        }
        let Some(question) = write(&item, &|_| None, true, false) else { return Ok(item) };
        match self.ask(cluster, &item.key, question).await? {
            Answer::Applied(_) => {}
            Answer::Failed(failed) => {
                item.verdict = Verdict::Blocked;
                let text = failed.text();
                item.why = match failed.known_class() {
                    FailureClass::Immutable => {
                        format!("a field that cannot be changed differs ({text}): try --on-conflict recreate")
                    }
                    FailureClass::NotAccepted => text,
                    class => format!("the API server refuses it ({class}): {text}"),
                };
            }
            _ => {
                item.verdict = Verdict::Blocked;
                "the agent gave another answer than was asked for".clone_into(&mut item.why);
            }
        }
        Ok(item)
    }
}

/// The step that writes an item.
pub(super) fn write(
    item: &Item,
    restored: &dyn Fn(&ObjectKey) -> Option<lockstep_engine::Uid>,
    dry_run: bool,
    status: bool,
) -> Option<Question> {
    let body = serde_json::to_vec(&item.write(restored)?).ok()?;
    let expect = match (item.verdict, &item.found) {
        (Verdict::Update, Some(found)) => Expect::Present(v1::Present {
            uid: found.uid.to_string(),
            resource_version: found.resource_version.to_string(),
        }),
        _ => Expect::Absent(v1::Absent::default()),
    };
    Some(Question::Restore(v1::Restore { body: body.into(), expect: Some(expect), dry_run, status }))
}
