//! Pages of a list.

use bytes::Bytes;
use lockstep_cluster::page;
use lockstep_engine::listwatch::{
    Absence, Input, Machine, Observation, Output, Settings, Start, WATCH_IDLE_MS,
};
use lockstep_engine::object::RawObject;
use serde_json::Value;

use crate::secrecy::assert_no_value;

/// A page as a server sends it.
///
/// - Its items are slices of it, as many as there are, in order.
/// - Every item leads to one observation; absence is conclusive only if all of them could be keyed (I3).
/// - What is no page is refused without a word of it.
pub fn list_pages(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let page = match page(&body) {
        Ok(page) => page,
        Err(error) => {
            let text = error.to_string();
            assert_no_value(text.strip_prefix("not a list: ").unwrap_or(&text));
            return;
        }
    };
    let range = body.as_ptr_range();
    for item in &page.items {
        let within = range.start <= item.as_ptr() && item.as_ptr_range().end <= range.end;
        assert!(within, "an item was copied out of its page");
    }
    if let Ok(tree) = serde_json::from_slice::<Value>(data) {
        let items = tree.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let read: Vec<Value> =
            page.items.iter().filter_map(|item| serde_json::from_slice(item).ok()).collect();
        assert_eq!(read, items);
    }
    let settings = Settings { epoch: 0, seed: 1, streaming: false, idle_ms: WATCH_IDLE_MS };
    let mut machine = Machine::new(settings);
    let mut out = Vec::new();
    machine.start(Start::Nothing, &mut out);
    out.clear();
    let keyed = page.items.iter().filter(|item| RawObject::parse(item).is_ok()).count();
    let (count, more) = (page.items.len(), page.continue_token.is_some());
    let (items, continue_token, resource_version) = (page.items, page.continue_token, page.resource_version);
    machine.step(Input::Page { items, continue_token, resource_version }, 10, &mut out);
    let (mut applied, mut undecodable, mut completed) = (0, 0, None);
    for output in &out {
        match output {
            Output::Observation(Observation::Applied { listed: true, .. }) => applied += 1,
            Output::Observation(Observation::Undecodable { listed: true, why }) => {
                assert_no_value(why);
                undecodable += 1;
            }
            Output::Observation(Observation::ListCompleted { absence, .. }) => completed = Some(*absence),
            _ => {}
        }
    }
    assert_eq!(applied + undecodable, count, "an item was lost");
    assert!(applied >= keyed, "an object was not taken");
    assert_eq!(completed.is_none(), more, "{completed:?}");
    if let Some(absence) = completed {
        assert_eq!(absence == Absence::Conclusive, undecodable == 0, "{absence:?}");
    }
}
