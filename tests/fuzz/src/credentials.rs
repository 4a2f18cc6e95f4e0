//! Tokens of agents and what the hub sealed.

use std::sync::OnceLock;

use lockstep_engine::ClusterName;
use lockstep_hub::seal::{BearerToken, HubKey};

const KEY: [u8; 32] = [7; 32];
const PLACE: &[u8] = b"fuzz";

/// A token that the key made, and a text that it sealed, once per process.
fn genuine() -> &'static (BearerToken, Vec<u8>) {
    static GENUINE: OnceLock<(BearerToken, Vec<u8>)> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let cluster = ClusterName::new("prod-eu-1").expect("a name");
        let token = BearerToken::of_agent(&KEY, &cluster).expect("random bytes");
        let sealed = HubKey::from_bytes(KEY).sealer().seal(PLACE, b"a Secret").expect("random bytes");
        (token, sealed)
    })
}

/// A text that is presented as a token, bytes that are read back as sealed, and changes to genuine ones: position and
/// what is xored there, in turn.
///
/// - No token is taken but the one that the key made, letter by letter.
/// - Nothing opens but what was sealed, for its place, unchanged.
pub fn credentials(data: &[u8]) {
    let (token, sealed) = genuine();
    let sealer = HubKey::from_bytes(KEY).sealer();
    let text = String::from_utf8_lossy(data);
    // A fuzzer that watches comparisons gets hold of the genuine ones.
    let presented = BearerToken::new(&text);
    assert_eq!(presented.vouched(&KEY).is_some(), presented == *token, "{text:?}");
    assert_eq!(sealer.open(PLACE, data).is_ok(), data == sealed, "a forgery opens");

    let (mut letters, mut bytes) = (token.reveal().as_bytes().to_vec(), sealed.clone());
    for change in data.chunks_exact(2) {
        for target in [&mut letters, &mut bytes] {
            let at = usize::from(change[0]) % target.len();
            target[at] ^= change[1];
        }
    }
    let presented = BearerToken::new(&String::from_utf8_lossy(&letters));
    assert_eq!(presented.vouched(&KEY).is_some(), presented == *token, "{:?}", presented.reveal());
    let opened = sealer.open(PLACE, &bytes);
    assert_eq!(opened.is_ok(), bytes == *sealed);
    assert!(sealer.open(data, sealed).is_err() || data == PLACE, "it opens at another place");
    assert_eq!(token.vouched(&[8; 32]), None, "another hub's token is taken");
}
