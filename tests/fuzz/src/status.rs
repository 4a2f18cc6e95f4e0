//! What an API server says when it refuses.

use lockstep_engine::listwatch::RequestFailure;
use lockstep_engine::outcome::{Operation, Sensitivity, Status, classify};
use lockstep_engine::ownership::{FieldSet, conflicts, force_allowed};
use serde_json::json;

use crate::secrecy::CANARY;

/// Longest text kept of a refusal, characters.
const LONGEST: usize = 515;

/// A body of a refusal, and parts of one.
///
/// - Whatever it is, it has a class and a bounded text.
/// - Nothing of a server's words about a Secret is kept (I13).
/// - A conflict is forced only where every field it names is ours.
pub fn server_status(data: &[u8]) {
    let http = data.iter().take(2).fold(0_u16, |code, byte| code << 8 | u16::from(*byte)) % 700;
    for http in [http, 400, 403, 404, 409, 410, 422, 429, 500, 503, 504] {
        for operation in
            [Operation::Apply, Operation::Patch, Operation::Delete, Operation::Read, Operation::List]
        {
            let failure = classify(http, data, operation, Sensitivity::Plain, None);
            assert!(failure.message.chars().count() <= LONGEST, "{failure:?}");
            assert_eq!(failure, classify(http, data, operation, Sensitivity::Plain, None));
        }
        let _ = RequestFailure::from_status(http, &Status::parse(data), None);
    }
    let text = String::from_utf8_lossy(data);
    let said = format!("{text}{CANARY}{text}");
    // Some webhooks write sentences where a reason belongs.
    let cause = json!({"reason": format!("{said}."), "message": said, "field": ".data"});
    let details = json!({"causes": [cause]});
    let body =
        json!({"code": 422, "reason": format!("{said}."), "message": said, "details": details}).to_string();
    for http in [400, 409, 422, 500] {
        let failure = classify(http, body.as_bytes(), Operation::Apply, Sensitivity::Secret, None);
        assert!(!failure.to_string().contains(CANARY), "a value got out: {failure}");
    }
    let causes = conflicts(&Status::parse(data));
    assert!(!force_allowed(&causes, &FieldSet::default()), "fields of nobody were forced");
}
