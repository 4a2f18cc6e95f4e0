//! The agent's side, with a hub that says anything.

use std::collections::VecDeque;

use bytes::Bytes;
use lockstep_wire::v1::{self, AgentMessage, Hello, HubMessage, agent_message, hub_message};
use lockstep_wire::{AgentEffect, AgentSession, PROTOCOL, Protocols};
use prost::Message;

use super::decode;
use crate::input::operations;

/// What the agent must hold: its batches that are not acknowledged, by number and size.
#[derive(Default)]
struct Model {
    made: u64,
    acked: u64,
    unacked: VecDeque<u64>,
    /// The highest number that went out on this connection.
    sent: u64,
}

/// Messages of a hub, connections that come and go, and batches in between.
///
/// - Messages that are decoded and encoded stay the same.
/// - A message is taken or refused as a protocol error, and either way the session holds exactly the batches that no
///   ack covered (I1).
/// - Batches go out in order, each once per connection; acks only rise, and never beyond what was sent.
/// - After whatever came, a new instance is welcomed and goes on.
pub fn agent_session(data: &[u8]) {
    let mut session = AgentSession::new("instance".to_owned(), Protocols::BUILT_IN);
    let mut model = Model::default();
    for (which, bytes) in operations(data) {
        match which % 8 {
            0 => {
                session.connected(decode(bytes).unwrap_or_default());
                assert_eq!(session.room(), None, "no batch leaves before the welcome");
                model.sent = model.acked;
            }
            1 => {
                session.disconnected();
                model.sent = model.acked;
                assert!(!session.is_open());
            }
            2 => batch(&mut session, &mut model, bytes),
            3 => handle(&mut session, &mut model, welcome(bytes)),
            4 => {
                session.renew("another".to_owned());
                model = Model::default();
            }
            _ => {
                let Some(message) = decode::<HubMessage>(bytes) else { continue };
                handle(&mut session, &mut model, message);
            }
        }
        check(&session, &model);
    }
    session.renew("last".to_owned());
    let mut model = Model::default();
    session.connected(Hello::default());
    handle(&mut session, &mut model, welcome(&[]));
    assert!(session.is_open() && session.room().is_some());
    batch(&mut session, &mut model, b"x");
    check(&session, &model);
}

/// A welcome that keeps to the protocol in what a decoder cannot hit by chance.
fn welcome(bytes: &[u8]) -> HubMessage {
    let told: v1::Welcome = decode(bytes).unwrap_or_default();
    let welcome = v1::Welcome { protocol: PROTOCOL, secret_key: Bytes::from_static(&[8; 32]), ..told };
    HubMessage { body: Some(hub_message::Body::Welcome(welcome)) }
}

fn batch(session: &mut AgentSession, model: &mut Model, body: &[u8]) {
    if session.room().is_none() {
        return;
    }
    let delete = v1::Delete { body: Bytes::copy_from_slice(body), ..v1::Delete::default() };
    let item = v1::Item { change: Some(v1::item::Change::Delete(delete)), ..v1::Item::default() };
    let message = session.batch(vec![v1::Section { items: vec![item], ..v1::Section::default() }]);
    model.made += 1;
    let size = sent(model, &message);
    model.unacked.push_back(size);
}

/// Notes a batch that leaves; its size.
fn sent(model: &mut Model, message: &AgentMessage) -> u64 {
    let Some(agent_message::Body::Batch(batch)) = &message.body else { panic!("{message:?}") };
    assert_eq!(batch.sequence, model.sent + 1, "batches leave out of order");
    model.sent = batch.sequence;
    u64::try_from(batch.encoded_len()).expect("a size")
}

fn handle(session: &mut AgentSession, model: &mut Model, message: HubMessage) {
    let ack = matches!(&message.body, Some(hub_message::Body::Ack(_)));
    let committed = match &message.body {
        Some(hub_message::Body::Welcome(welcome)) if welcome.same_instance => Some(welcome.committed),
        _ => None,
    };
    let Ok(effects) = session.handle(message) else { return };
    for effect in &effects {
        match effect {
            AgentEffect::Opened(opened) if opened.resumed => {
                let committed = committed.expect("the hub knows this instance");
                assert!((model.acked..=model.made).contains(&committed), "{committed}");
                acked(model, committed);
                model.sent = committed;
            }
            AgentEffect::Forget => *model = Model::default(),
            AgentEffect::Acked { sequence } => {
                assert!(ack && (model.acked + 1..=model.sent).contains(sequence), "{sequence}");
                acked(model, *sequence);
            }
            AgentEffect::Send(message) => {
                let size = sent(model, message);
                let at = usize::try_from(model.sent - model.acked - 1).expect("a position");
                assert_eq!(model.unacked.get(at), Some(&size), "another batch under that number");
            }
            _ => {}
        }
    }
}

fn acked(model: &mut Model, sequence: u64) {
    while model.acked < sequence {
        model.acked += 1;
        model.unacked.pop_front().expect("only what was made is acknowledged");
    }
}

fn check(session: &AgentSession, model: &Model) {
    assert_eq!(session.unacked_batches(), model.unacked.len());
    assert_eq!(session.unacked_bytes(), model.unacked.iter().sum::<u64>());
}
