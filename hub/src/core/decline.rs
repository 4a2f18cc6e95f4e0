//! While there is no room: reads are answered, what frees room is carried out, and everything else is refused in a
//! way that loses nothing.

use lockstep_engine::Millis;
use lockstep_wire::v1;

use super::command::{Command, CommandError};
use super::keeping::Keeping;
use super::{Core, Input, PolicyFiles};
use crate::store::{Store, StoreError};

/// Name of the setting that is written to see whether the store takes anything.
const PROBE: &str = "probe";

impl<S: Store> Core<S> {
    /// Ends every session: what their agents were not told is committed they send again.
    pub fn turn_away(&mut self, why: &v1::Refused, now: Millis) {
        self.close_all(&why.code, &why.message, &why.remedy, now);
    }

    /// Takes an input without taking it in. Gives back what would otherwise not be told again.
    ///
    /// # Errors
    /// When a read failed.
    pub fn decline(
        &mut self,
        input: Input,
        why: &v1::Refused,
        now: Millis,
    ) -> Result<Option<PolicyFiles>, StoreError> {
        match input {
            Input::Connect(connect) => {
                let name = &connect.hello.cluster_name;
                if self.names.keys().any(|known| known.as_str() == name) {
                    let problem = format!("{}: {}; {}", why.code, why.message, why.remedy);
                    self.told(name, |told| told.problem = Some(problem));
                }
                // An agent that does not wait for the answer comes again.
                let _ = connect.reply.send(Err(why.clone()));
                Ok(None)
            }
            Input::Policies(files) => Ok(Some(files)),
            Input::Command(command @ Command::Explain { .. }) => {
                self.command(command, now)?;
                self.release_effects();
                Ok(None)
            }
            // It frees room, and the files are gone already.
            Input::Command(Command::Keep(Keeping::Purged { ids, reply })) => {
                let purged = self.forget_purged(&ids);
                if purged.is_err() {
                    self.store.rollback()?;
                }
                let answer = purged.map_err(|error| CommandError {
                    code: why.code.clone(),
                    message: format!("the files are deleted, their tombstones are still listed: {error}"),
                    remedy: format!("{}; they go with the next sweep then", why.remedy),
                });
                drop(reply.send(answer));
                Ok(None)
            }
            Input::Command(command) => {
                let v1::Refused { code, message, remedy, retry_after_ms: _ } = why.clone();
                refuse(command, CommandError { code, message, remedy });
                Ok(None)
            }
            // Sessions ended; the archiver tells again; time goes on.
            Input::Message { .. } | Input::Disconnected { .. } | Input::Archived { .. } | Input::Tick => {
                Ok(None)
            }
        }
    }

    fn forget_purged(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        self.store.begin()?;
        ids.iter().try_for_each(|id| self.store.forget_tombstone(*id))?;
        self.store.commit()
    }

    /// Writes a little, durably.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn probe(&mut self, now: Millis) -> Result<(), StoreError> {
        let written = self
            .store
            .begin()
            .and_then(|()| self.store.put_meta(PROBE, &now.to_string()))
            .and_then(|()| self.store.commit());
        if written.is_err() {
            self.store.rollback()?;
        }
        written?;
        if self.stale { self.reload() } else { Ok(()) }
    }
}

/// Whoever no longer waits does not hear it.
fn refuse(command: Command, error: CommandError) {
    match command {
        Command::Approve { reply, .. } => drop(reply.send(Err(error))),
        Command::Orphan { reply, .. } => drop(reply.send(Err(error))),
        Command::Pause { reply, .. } => drop(reply.send(Err(error))),
        Command::RemoveCluster { reply, .. } => drop(reply.send(Err(error))),
        Command::AcceptRewind { reply, .. } => drop(reply.send(Err(error))),
        Command::CreateToken { reply, .. } => drop(reply.send(Err(error))),
        Command::Explain { reply, .. } => drop(reply.send(Err(error))),
        Command::Compare { reply, .. } => drop(reply.send(Err(error))),
        Command::Keep(keeping) => keeping.refuse(error),
        Command::Restore(command) => command.refuse(error),
    }
}
