//! The log, to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};
use crate::output::Palette;

/// Of ours, and of the libraries that talk too much.
const FILTERS: [&str; 3] = [
    "info,hyper=warn,tower=warn,h2=warn,kube_client=warn",
    "info,lockstep=debug,lockstep_hub=debug,lockstep_agent=debug,lockstep_cluster=debug,lockstep_cli=debug",
    "debug,lockstep_hub=trace,lockstep_agent=trace,lockstep_cluster=trace,lockstep_cli=trace",
];

/// Starts logging. RUST_LOG wins over `-v`. `quiet` raises the default to warnings, where the
/// command itself tells what it does.
pub(crate) fn start(args: &LogArgs, quiet: bool) {
    let LogArgs { verbose, log_format } = args;
    let fallback = match (verbose, quiet) {
        (0, true) => "warn",
        (level, _) => FILTERS.get(usize::from(*level)).copied().unwrap_or(FILTERS[2]),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let ansi = Palette::for_terminal(std::io::stderr().is_terminal()) == Palette::Ansi;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // A second start in one process (tests) is of no consequence.
    let _ = match log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
