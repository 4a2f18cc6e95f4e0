//! The hub's side, with an agent that says anything.

use lockstep_wire::v1::{AgentMessage, Batch, Hello, Welcome, agent_message, hub_message};
use lockstep_wire::{HubEffect, HubSession, PROTOCOL, Protocols, Window, hello};

use super::decode;
use crate::input::operations;

/// Small, so that it is met.
const WINDOW: Window = Window { bytes: 200, batches: 3 };

/// Messages of an agent, commits that come late, and streams that begin anew.
///
/// - Batches are to be committed in order, each once, and no more than the window allows are under way.
/// - Acks only rise, and never beyond what was committed (I1).
/// - An agent that lost what comes next is not taken for the one that was there.
/// - Whoever is not served is told why and what to do.
pub fn hub_session(data: &[u8]) {
    let (mut instance, mut committed) = (String::new(), 0_u64);
    let mut session = HubSession::open(&Hello::default(), PROTOCOL, None, WINDOW);
    let mut received = 0_u64;
    for (which, bytes) in operations(data) {
        match which % 6 {
            0 => {
                let hello = decode::<Hello>(bytes).unwrap_or_default();
                greeted(&hello);
                session = HubSession::open(&hello, PROTOCOL, Some((&instance, committed)), WINDOW);
                if session.same_instance() {
                    assert!(hello.instance == instance && hello.oldest_unacked <= committed + 1);
                } else {
                    (instance, committed) = (hello.instance, 0);
                }
                received = committed;
                let welcome = session.welcome(Welcome::default());
                let Some(hub_message::Body::Welcome(welcome)) = welcome.body else { panic!("{welcome:?}") };
                assert_eq!(welcome.committed, committed);
            }
            1 => {
                let upto = committed + u64::from(bytes.first().copied().unwrap_or(1));
                let ack = session.committed(upto);
                assert_eq!(ack.is_some(), upto.min(received) > committed);
                committed = committed.max(upto.min(received));
            }
            2 => {
                // The next one, and what is in it.
                let batch = Batch { sequence: received + 1, ..decode(bytes).unwrap_or_default() };
                let message = AgentMessage { body: Some(agent_message::Body::Batch(batch)) };
                handle(&mut session, message, committed, &mut received);
            }
            _ => {
                let Some(message) = decode::<AgentMessage>(bytes) else { continue };
                handle(&mut session, message, committed, &mut received);
            }
        }
        let under_way = usize::try_from(received - committed).expect("few");
        assert_eq!(session.outstanding_batches(), under_way);
        assert!(under_way <= 3);
        assert_eq!(session.outstanding_bytes() == 0, under_way == 0);
    }
}

fn handle(session: &mut HubSession, message: AgentMessage, committed: u64, received: &mut u64) {
    match session.handle(message) {
        Ok(Some(HubEffect::Commit { batch, .. })) => {
            assert_eq!(batch.sequence, *received + 1, "batches are committed out of order");
            *received = batch.sequence;
        }
        Ok(Some(HubEffect::Send(message))) => {
            let Some(hub_message::Body::Ack(ack)) = message.body else { panic!("{message:?}") };
            assert_eq!(ack.sequence, committed, "an ack of what is not committed");
        }
        Ok(_) | Err(_) => {}
    }
}

fn greeted(hello: &Hello) {
    let known = hello::Known { token_cluster: "a", uid_of_name: Some("uid"), name_of_uid: Some("a") };
    match hello::check(hello, &known, Protocols::BUILT_IN) {
        Ok(spoken) => {
            assert!(spoken <= hello.protocol && Protocols::BUILT_IN.contains(spoken));
            assert_eq!((hello.cluster_name.as_str(), hello.cluster_uid.as_str()), ("a", "uid"));
        }
        Err(refusal) => {
            assert!(hello::CODES.iter().any(|(code, _)| *code == refusal.code));
            assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty());
        }
    }
}
