//! SIGTERM and SIGINT: the first stops gracefully, the second at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{CliError, Outcome};
use crate::output;

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
        }
    });
    Ok(stop)
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
