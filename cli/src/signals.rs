//! SIGTERM and SIGINT: the first stops gracefully, the second at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{CliError, Outcome};
use crate::output;

/// From the first signal to the end of the process. Connections have five seconds of it (`lockstep_net::limits::DRAIN`);
/// kubelets wait thirty.
const DEADLINE: Duration = Duration::from_secs(9);

/// A token that the first signal cancels.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, CliError> {
    let open = |kind| signal(kind).map_err(|error| CliError::io("signals cannot be received", &error));
    let (mut terminate, mut interrupt) = (open(SignalKind::terminate())?, open(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !first {
                std::process::exit(i32::from(Outcome::Failed.code()));
            }
            output::note("stopping; once more to stop at once");
            cancelled.cancel();
            end_in_time();
        }
    });
    Ok(stop)
}

/// Ends the process when it does not end by itself in time, whatever holds it up: a thread of its own, since the runtime
/// may be what is stuck. Nothing is lost by it: what was acknowledged is committed (I1).
fn end_in_time() {
    // Without the thread the process ends as before: when all parts have.
    let _ = std::thread::Builder::new().name("deadline".to_owned()).spawn(|| {
        std::thread::sleep(DEADLINE);
        output::note("not every part stopped in time; ending all the same");
        std::process::exit(i32::from(Outcome::Failed.code()));
    });
}

/// The same for a command that only shows something: without a word.
pub(crate) fn stop_quietly() -> Result<CancellationToken, CliError> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CliError::io("signals cannot be received", &error))?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        interrupt.recv().await;
        cancelled.cancel();
    });
    Ok(stop)
}
