//! Errors of the command line: what, where, how to mend it; the chain printed once.

use std::fmt::Write as _;
use std::process::ExitCode;

use lockstep_hub::http::types::CommandError;

/// What a command ended with; `--help` documents the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked.
    Done,
    /// It failed.
    Failed,
    /// It was asked in a way that it does not understand.
    Usage,
    /// It did what it was asked, and found differences or something to mend.
    Findings,
}

impl Outcome {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Findings => 3,
        }
    }

    /// For `main`.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// The codes of the command line and its configuration, with titles; each has a page in docs/errors.
pub const CODES: &[(&str, &str)] = &[
    ("LS0001", "the hub cannot be reached"),
    ("LS0002", "the answer of the hub cannot be understood"),
    ("LS0003", "a file cannot be read or written"),
    ("LS0004", "the configuration cannot be used"),
    ("LS0005", "the hub's token cannot be read"),
    ("LS0006", "a context of the kubeconfig cannot be used"),
    ("LS0007", "a context name is not a cluster name"),
    ("LS0008", "two contexts reach one cluster"),
    ("LS0009", "the hub cannot run"),
    ("LS0010", "the agent cannot run"),
    ("LS0011", "the arguments do not go together"),
    ("LS0012", "waiting took too long"),
    ("LS0013", "the object was not found"),
    ("LS0014", "the certificate of the hub cannot be checked"),
];

/// A command failed. Display is what a person reads, without the word `error`.
#[derive(Debug)]
pub struct CliError {
    code: String,
    message: String,
    remedy: String,
    causes: Vec<String>,
    outcome: Outcome,
    broken_pipe: bool,
}

impl CliError {
    /// An error with a code, what is wrong, and how to mend it.
    pub fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
            causes: Vec::new(),
            outcome: Outcome::Failed,
            broken_pipe: false,
        }
    }

    /// The arguments do not go together: exit code 2.
    pub fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Usage, ..Self::new("LS0011", message, remedy) }
    }

    /// Input or output failed.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        let remedy = "check that the path exists and that you may use it";
        Self { broken_pipe, ..Self::new("LS0003", what, remedy).caused_by(error) }
    }

    /// What the hub refused.
    #[must_use]
    pub fn from_hub(error: CommandError) -> Self {
        let CommandError { code, message, remedy } = error;
        Self::new(&code, message, remedy)
    }

    /// Adds an error and its sources; a text that repeats the one before is left out.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            let known = self.causes.last().is_some_and(|last| last.contains(&text));
            if !known && !self.message.contains(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// The causes alone, in one line.
    #[must_use]
    pub fn causes(&self) -> String {
        self.causes.join(": ")
    }

    /// `LSxxxx`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The exit code.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Did the reader of our output go away? That is no failure.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// For `-o json`.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("{}: {}", self.code, self.message);
        for cause in &self.causes {
            let _ = write!(text, ": {cause}");
        }
        if !self.remedy.is_empty() {
            let _ = write!(text, "\n  {}", self.remedy);
        }
        f.write_str(&text)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page() {
        for (code, title) in CODES {
            let path = format!("{}/../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert!(page.starts_with(&format!("# {code}: {title}\n")), "{code} has another title");
            for part in ["## What it means", "## Example", "## How to mend it"] {
                assert!(page.contains(part), "the page of {code} lacks `{part}`");
            }
        }
    }

    #[test]
    fn the_chain_is_printed_once() {
        let inner = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = CliError::io("hub.yaml cannot be read", &inner).caused_by(&inner);
        let text = error.to_string();
        assert_eq!(text.matches("no such file").count(), 1, "{text}");
        assert!(text.starts_with("LS0003: hub.yaml cannot be read: no such file\n  check"), "{text}");
        assert_eq!(CliError::usage("a", "b").outcome().code(), 2);
    }
}
