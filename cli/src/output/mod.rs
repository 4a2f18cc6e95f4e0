//! The one place that prints: tables, JSON, YAML, names, colours.
//!
//! Colours appear only on a terminal, and not with NO_COLOR. Control characters out of the API
//! never reach a terminal as they are.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod color;
mod table;
mod time;

use std::io::{IsTerminal, Write};

use clap_complete::Shell;
use serde::Serialize;

use crate::args::Format;
use crate::error::{CliError, Outcome};

pub use color::{Paint, Palette};
pub use table::{Cell, Table};
pub use time::{age, clock, now_ms, parse_date, span};

/// Where a command's output goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Format.
    pub format: Format,
    /// Colours.
    pub palette: Palette,
    /// Is stdout a terminal?
    pub terminal: bool,
}

impl Out {
    /// For a format, on this process's stdout.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { format, palette: Palette::for_terminal(terminal), terminal }
    }

    /// Is it for programs?
    #[must_use]
    pub fn structured(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Shows a value in the format asked for: `value` for programs, `table` for people, `names` for
    /// shells.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(bool) -> Table,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.text(&table(false).render(self.palette)),
            Format::Wide => self.text(&table(true).render(self.palette)),
            Format::Json | Format::Yaml => self.text(&self.encode(value)?),
            Format::Name => self.text(&names().iter().map(|name| plain(name) + "\n").collect::<String>()),
        }
    }

    /// A value as JSON or YAML.
    ///
    /// # Errors
    /// When it cannot be written that way.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<String, CliError> {
        let broken = |error: &dyn std::error::Error| {
            CliError::new("LS0002", "the answer cannot be shown", "report it").caused_by(error)
        };
        if self.format == Format::Yaml {
            return serde_saphyr::to_string(value).map_err(|error| broken(&error));
        }
        let mut text = serde_json::to_string_pretty(value).map_err(|error| broken(&error))?;
        text.push('\n');
        Ok(text)
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| CliError::io("stdout cannot be written", &error))
    }

    /// Prints one line.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        self.text(&format!("{line}\n"))
    }

    /// Replaces what is on the screen without flicker: each line is overwritten in place, and only
    /// what is left below is cleared.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn repaint(&self, text: &str) -> Result<(), CliError> {
        let mut screen = String::from("\x1b[H");
        for line in text.lines() {
            screen.push_str(line);
            screen.push_str("\x1b[K\n");
        }
        screen.push_str("\x1b[J");
        self.text(&screen)
    }

    /// Clears the screen, before the first [`Self::repaint`].
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn clear(&self) -> Result<(), CliError> {
        self.text("\x1b[2J")
    }
}

/// A remark for people, to stderr.
pub fn note(text: &str) {
    eprintln!("{}", plain(text));
}

/// How far something has come, on stderr where that is a terminal: one line, overwritten. An empty
/// text takes it away.
pub fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{}", plain(text));
    }
}

/// Prints an error, once.
pub fn error(error: &CliError) {
    let palette = Palette::for_terminal(std::io::stderr().is_terminal());
    let text = error.to_string();
    eprintln!(
        "{} {}",
        palette.paint(Paint::Bad, "error:"),
        text.lines().map(plain).collect::<Vec<_>>().join("\n")
    );
}

/// Prints a completion script.
///
/// # Errors
/// When stdout is closed.
pub fn completions(shell: Shell, command: &mut clap::Command) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "lockstep", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| CliError::io("stdout cannot be written", &error))?;
    Ok(Outcome::Done)
}

/// Text without control characters: names and messages come from clusters that anyone may write to.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(plain("a\x1b[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }

    #[test]
    fn structured_output_is_the_value_itself() {
        let value = serde_json::json!({"kind": "ClusterList", "items": [{"name": "a"}]});
        let mut out = Out { format: Format::Json, palette: Palette::None, terminal: false };
        let json = out.encode(&value).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        out.format = Format::Yaml;
        let yaml = out.encode(&value).unwrap();
        assert!(yaml.contains("kind: ClusterList\n"), "{yaml}");
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), value);
    }
}
