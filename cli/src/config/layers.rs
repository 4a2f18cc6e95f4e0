//! The layers of configuration, each a tree of keys with a name.

use std::path::{Path, PathBuf};

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::explain::{self, key_line};
use crate::error::CliError;

/// Prefix of environment variables; `__` stands between levels.
pub(crate) const PREFIX: &str = "LOCKSTEP_CONFIG__";

/// Settings from flags, by dotted key.
#[derive(Debug, Default)]
pub struct Flags(Dict);

impl Flags {
    /// Sets one key, when the flag was given.
    #[must_use]
    pub fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let parts: Vec<&str> = key.split('.').collect();
            insert(&mut self.0, &parts, Value::from(value.to_string()));
        }
        self
    }
}

/// File, environment and flags.
#[derive(Debug, Default)]
pub struct Layers {
    file: Option<File>,
    environment: Dict,
    flags: Dict,
}

#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    text: String,
    keys: Dict,
}

impl Layers {
    /// Reads the file, and takes the variables that begin with the prefix.
    ///
    /// # Errors
    /// LS0003 when the file cannot be read, LS0004 when it is not YAML.
    pub fn new(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Self, CliError> {
        let file = file.map(read).transpose()?;
        let mut environment = Dict::new();
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(PREFIX) {
                let key = key.to_ascii_lowercase();
                let parts: Vec<&str> = key.split("__").collect();
                insert(&mut environment, &parts, typed(&parts, &value));
            }
        }
        Ok(Self { file, environment, flags: flags.0 })
    }

    /// With the environment of this process.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_process(file: Option<&Path>, flags: Flags) -> Result<Self, CliError> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::new(file, variables, flags)
    }

    /// The value of all layers together. `also` names keys that are known beside those of `T`.
    pub(super) fn extract<T: DeserializeOwned, D: Serialize>(
        &self,
        defaults: Option<&D>,
        also: &[&str],
    ) -> Result<T, CliError> {
        let mut figment = Figment::new();
        if let Some(defaults) = defaults {
            figment = figment.merge(Serialized::defaults(defaults));
        }
        if let Some(file) = &self.file {
            figment = figment.merge(Layer("file", &file.keys));
        }
        figment = figment.merge(Layer("environment", &self.environment)).merge(Layer("flags", &self.flags));
        figment.extract().map_err(|error| explain::error(error, self, also))
    }

    /// Does the file, or a flag that others see in the list of processes, set a key that only the
    /// environment may?
    pub(super) fn is_in_the_open(&self, key: &str) -> bool {
        let parts: Vec<&str> = key.split('.').collect();
        self.file.as_ref().is_some_and(|file| has(&file.keys, &parts)) || has(&self.flags, &parts)
    }

    /// Those top-level keys, and the rest.
    pub(super) fn partition(self, keys: &[&str]) -> (Self, Self) {
        let split = |dict: Dict| -> (Dict, Dict) {
            dict.into_iter().partition(|(key, _)| keys.contains(&key.as_str()))
        };
        let Self { file, environment, flags } = self;
        let (own_environment, environment) = split(environment);
        let (own_flags, flags) = split(flags);
        let (own_file, file) = match file {
            Some(File { path, text, keys }) => {
                let (own, rest) = split(keys);
                let file = |keys| Some(File { path: path.clone(), text: text.clone(), keys });
                (file(own), file(rest))
            }
            None => (None, None),
        };
        let own = Self { file: own_file, environment: own_environment, flags: own_flags };
        (own, Self { file, environment, flags })
    }

    /// ` (hub.yaml)`, or nothing.
    pub(super) fn origin(&self) -> String {
        self.file.as_ref().map(|file| format!(" ({})", file.path.display())).unwrap_or_default()
    }

    /// Where a dotted key was set: `hub.yaml:7: `, `LOCKSTEP_CONFIG__LISTEN__API: `, `flags: `, or nothing.
    pub(super) fn place(&self, key: &str) -> String {
        let parts: Vec<&str> = key.split('.').filter(|part| !part.is_empty()).collect();
        if has(&self.flags, &parts) {
            return "flags: ".to_owned();
        }
        if has(&self.environment, &parts) {
            return format!("{PREFIX}{}: ", parts.join("__").to_ascii_uppercase());
        }
        let Some(file) = &self.file else { return String::new() };
        match key_line(&file.text, &parts).filter(|_| has(&file.keys, &parts)) {
            Some(line) => format!("{}:{line}: ", file.path.display()),
            None => format!("{}: ", file.path.display()),
        }
    }
}

fn read(path: &Path) -> Result<File, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::io(format!("the configuration file {shown} cannot be read"), &error))?;
    let keys: Option<Dict> = serde_saphyr::from_str(&text).map_err(|error| {
        let line = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let remedy = "deploy/examples/hub.yaml and agent.yaml show the form";
        // The reader's own text may quote the file, and with it a token.
        CliError::new("LS0004", format!("{shown}{line}: this is not YAML with one key per setting"), remedy)
    })?;
    Ok(File { path: path.to_owned(), text, keys: keys.unwrap_or_default() })
}

/// Tokens and keys stay text whatever they look like.
fn typed(parts: &[&str], value: &str) -> Value {
    let text = || Value::from(value.to_owned());
    if parts.last().is_some_and(|last| explain::SECRET.contains(last)) {
        return text();
    }
    let structured = value.starts_with(['[', '{', '"']);
    if structured || matches!(value, "true" | "false") || value.parse::<i64>().is_ok() {
        return value.parse().unwrap_or_else(|_: std::convert::Infallible| text());
    }
    text()
}

fn insert(dict: &mut Dict, parts: &[&str], value: Value) {
    match parts {
        [] => {}
        [last] => {
            dict.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let mut below = match dict.remove(*first) {
                Some(Value::Dict(_, below)) => below,
                _ => Dict::new(),
            };
            insert(&mut below, rest, value);
            dict.insert((*first).to_owned(), Value::from(below));
        }
    }
}

fn has(dict: &Dict, parts: &[&str]) -> bool {
    match parts {
        [] => false,
        [last] => dict.contains_key(*last),
        [first, rest @ ..] => dict.get(*first).and_then(Value::as_dict).is_some_and(|below| has(below, rest)),
    }
}

struct Layer<'a>(&'static str, &'a Dict);

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.1.clone())]))
    }
}
