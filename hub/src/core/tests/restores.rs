//! What a restore asks of the core.

use lockstep_engine::ClusterId;
use lockstep_engine::restore::{Options, Verdict};
use lockstep_wire::v1::{self, outcome::Result as Answer, step::Action};
use tokio::sync::oneshot;

use super::fleet::*;
use super::told::*;
use crate::core::Input;
use crate::core::command::{Command, CommandError, Question, RestoreCommand};
use crate::store::restores::{ItemState, RestoreItemRow, RestoreReader as _, RestoreRow};

type Told<T> = oneshot::Receiver<Result<T, CommandError>>;

fn send<T>(
    fleet: &mut Fleet,
    command: impl FnOnce(crate::core::command::Reply<T>) -> RestoreCommand,
) -> Told<T> {
    let (reply, told) = oneshot::channel();
    fleet.input(Input::Command(Command::Restore(command(reply))));
    told
}

fn ask(fleet: &mut Fleet, cluster: ClusterId, name: &str) -> Told<Answer> {
    send(fleet, |reply| RestoreCommand::Ask { cluster, key: key(name), question: Question::Read, reply })
}

fn row(cluster: ClusterId) -> RestoreRow {
    let options = Options::default();
    RestoreRow { id: 0, cluster, asked_by: "ada".to_owned(), asked_at: 0, options, ended_at: None }
}

fn item(name: &str) -> RestoreItemRow {
    RestoreItemRow {
        restore: 0,
        position: 0,
        tombstone: 1,
        key: key(name),
        dependency: false,
        verdict: Verdict::Create,
        state: ItemState::Planned,
        message: String::new(),
        replaced: None,
    }
}

fn begin(fleet: &mut Fleet, cluster: ClusterId, name: &str) -> Result<i64, CommandError> {
    let items = vec![item(name)];
    send(fleet, |reply| RestoreCommand::Begin { row: row(cluster), items, reply }).try_recv().unwrap()
}

#[test]
fn a_question_waits_for_the_step_of_its_object() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let b = fleet.cluster("b").id;
    fleet.section("a", vec![source("cm-0", "s0", 10, "1")], None);
    let write = fleet.one_step("b");
    let mut told = ask(&mut fleet, b, "cm-0");
    assert!(fleet.steps("b").is_empty(), "one step per object at a time");
    fleet.perform("b", &write, "t0", 50, false);
    let read = fleet.one_step("b");
    assert!(matches!(read.action, Some(Action::Read(_))), "{read:?}");
    assert!(told.try_recv().is_err());
    fleet.outcome("b", read.step, Answer::Gone(v1::Done {}));
    assert_eq!(told.try_recv().unwrap(), Ok(Answer::Gone(v1::Done {})));
}

#[test]
fn a_question_ends_when_its_agent_leaves_and_none_is_asked_without_one() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let b = fleet.cluster("b").id;
    let mut told = ask(&mut fleet, b, "cm-0");
    fleet.disconnect("b");
    assert!(matches!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    assert_eq!(ask(&mut fleet, b, "cm-0").try_recv().unwrap().unwrap_err().code, "LS0280");
}

#[test]
fn i4_what_is_replaced_is_told_to_be_kept_once_the_archive_has_it() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let b = fleet.cluster("b").id;
    let image = v1::Image {
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        body: b"{\"metadata\":{\"name\":\"cm-0\"}}".as_slice().into(),
        ..v1::Image::default()
    };
    let mut told =
        send(&mut fleet, |reply| RestoreCommand::Keep { cluster: b, key: key("cm-0"), image, reply });
    assert!(told.try_recv().is_err(), "it is in the outbox only");
    fleet.archive();
    let kept = told.try_recv().unwrap().unwrap();
    let tombstone = fleet.tombstones().into_iter().find(|row| row.id == kept).unwrap();
    assert_eq!((tombstone.resource_version.as_str(), tombstone.deleted), ("7", false));
    let id = begin(&mut fleet, b, "cm-0").unwrap();
    let done = RestoreItemRow { restore: id, state: ItemState::Done, replaced: Some(kept), ..item("cm-0") };
    send(&mut fleet, |reply| RestoreCommand::Note { items: vec![done], reply }).try_recv().unwrap().unwrap();
    let tombstone = fleet.tombstones().into_iter().find(|row| row.id == kept).unwrap();
    assert!(tombstone.deleted, "it was carried out");
}

#[test]
fn two_restores_of_one_object_do_not_run_at_once_and_both_outlive_the_hub() {
    let mut fleet = Fleet::up(&[("p.yaml", POLICY)]);
    let (a, b) = (fleet.cluster("a").id, fleet.cluster("b").id);
    let first = begin(&mut fleet, b, "cm-0").unwrap();
    fleet.restart();
    assert_eq!(begin(&mut fleet, b, "cm-0").unwrap_err().code, "LS0284");
    begin(&mut fleet, a, "cm-0").unwrap();
    begin(&mut fleet, b, "cm-1").unwrap();
    send(&mut fleet, |reply| RestoreCommand::End { id: first, reply }).try_recv().unwrap().unwrap();
    begin(&mut fleet, b, "cm-0").unwrap();
    assert_eq!(fleet.core.store.restores(true, 9).unwrap().len(), 3);
}
