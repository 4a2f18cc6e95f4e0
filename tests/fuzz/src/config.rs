//! Configuration files of hub and agent.

use std::path::{Path, PathBuf};

use lockstep_cli::config::{Flags, Layers, agent, hub};
use lockstep_cli::error::{CODES, CliError};
use lockstep_hub::HubConfig;

use crate::secrecy::CANARY;

/// The file of a configuration.
///
/// - It is taken or refused, with a code that has a page; what was taken is taken again the same.
/// - A refusal names the file, and a line that the file has.
/// - A file that is no YAML is not quoted: it may hold a token (I13).
pub fn hub_config(data: &[u8]) {
    let dir = in_memory();
    let path = dir.path().join("lockstep.yaml");
    std::fs::write(&path, data).expect("a file in a directory of our own");
    let lines = data.split(|byte| *byte == b'\n' || *byte == b'\r').count();
    match layers(&path) {
        Err(error) => {
            let text = sound(&error, &path, lines);
            assert!(!text.contains(CANARY), "{text}");
        }
        Ok(layers) => {
            let read = hub(&HubConfig::default(), &layers);
            match &read {
                Ok(config) => {
                    config.validate().expect("what is taken is valid");
                    assert_eq!(hub(&HubConfig::default(), &layers).as_ref().ok(), Some(config));
                }
                Err(error) => drop(sound(error, &path, lines)),
            }
            if let Err(error) = agent(layers) {
                let _ = error.to_string();
            }
        }
    }
}

fn layers(path: &Path) -> Result<Layers, CliError> {
    Layers::new(Some(path), Vec::new(), Flags::default())
}

/// What it says.
fn sound(error: &CliError, path: &Path, lines: usize) -> String {
    let text = error.to_string();
    assert!(CODES.iter().any(|(code, _)| text.starts_with(&format!("{code}: "))), "{text}");
    let path = path.display().to_string();
    let (_, after) = text.split_once(&path).unwrap_or_else(|| panic!("the file is not named: {text}"));
    let line: String = after.chars().skip(1).take_while(char::is_ascii_digit).collect();
    if after.starts_with(':') && !line.is_empty() {
        assert!(line.parse().is_ok_and(|line: usize| (1..=lines).contains(&line)), "{text} of {lines} lines");
    }
    text
}

/// A directory that no disk slows down, where there is one.
pub(crate) fn in_memory() -> tempfile::TempDir {
    let shared = PathBuf::from("/dev/shm");
    let place = if shared.is_dir() { shared } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).expect("a temporary directory")
}
