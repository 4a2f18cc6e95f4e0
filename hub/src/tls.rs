//! TLS of the hub's ports, and what becomes of certificates that cannot be used any more.

use lockstep_net::tls::Report;
pub use lockstep_net::{TlsConfig, TlsError};

use crate::codes::Code;
use crate::owner::now;
use crate::problem::Problems;

/// Codes of this part.
pub const CODES: &[Code] = &[UNUSABLE];
const UNUSABLE: Code = Code { code: "LS0241", title: "a certificate or key of the hub cannot be used" };

/// Reports files that went bad while the hub runs; the last good certificate stays in use.
pub(crate) fn report(problems: Problems) -> Report {
    Box::new(move |error| match error {
        Some(error) => {
            let message = format!("{} cannot be used: {}", error.path.display(), error.why);
            let remedy = "put a certificate and its key there; the hub looks again every few seconds, and \
                          uses the last good ones until then";
            problems.set(UNUSABLE, message, remedy, false, now());
        }
        None => problems.clear(UNUSABLE),
    })
}
