//! `lockstep hub backup` and `lockstep hub restore`: the hub's data, beside a hub or without one.

use std::path::PathBuf;

use lockstep_hub::HubConfig;
use lockstep_hub::backup::{
    BackupError, BackupOptions, Manifest, Progress, RestoreOptions, RestoreReport, backup, restore,
};
use lockstep_hub::seal::HubKey;

use crate::args::{HubCommand, ServerArgs};
use crate::config::{self, Flags, Layers};
use crate::error::{CliError, Outcome};
use crate::output::{self, Cell, Out, Table, now_ms};

/// Works on the data of the hub that the configuration, or `--data-dir`, names.
pub(crate) fn run(
    command: HubCommand,
    above: Option<PathBuf>,
    server: &ServerArgs,
) -> Result<Outcome, CliError> {
    match command {
        HubCommand::Backup { config, to, output } => {
            let config = settings(config.or(above), server)?;
            make(&config, to, &Out::new(output.output))
        }
        HubCommand::Restore { config, from, force, output } => {
            let config = settings(config.or(above), server)?;
            put_back(&config, from, force, &Out::new(output.output))
        }
    }
}

fn settings(file: Option<PathBuf>, server: &ServerArgs) -> Result<HubConfig, CliError> {
    let flags = Flags::default().with("data_dir", server.data_dir.as_ref().map(|path| path.display()));
    config::hub(&HubConfig::default(), &Layers::of_process(file.as_deref(), flags)?)
}

fn make(config: &HubConfig, to: PathBuf, out: &Out) -> Result<Outcome, CliError> {
    let options = BackupOptions {
        data_dir: config.data_dir.clone(),
        archive_dir: config.archive_dir(),
        to: to.clone(),
        now: now_ms(),
    };
    let made = backup(&options, &mut tell);
    output::progress("");
    let manifest = made.map_err(|error| refused(&error))?;
    let place = to.display().to_string();
    out.show(&manifest, |_| table(&place, &manifest), || vec![place.clone()])?;
    let key = match config.key_file.exists() {
        true => format!("the hub's key, {},", config.key_file.display()),
        false => "the hub's key (`key_file` in its configuration)".to_owned(),
    };
    output::note(&format!(
        "{key} is not in the backup, nor is `api-token`: keep a copy of the key in another place; without it the Secrets in the backup cannot be read, and what lockstep wrote is not recognised"
    ));
    Ok(missing(manifest.archive.missing, "the archive"))
}

fn put_back(config: &HubConfig, from: PathBuf, force: bool, out: &Out) -> Result<Outcome, CliError> {
    // Only read: a hub that has none makes one at its start.
    let key = config.key_file.exists().then(|| HubKey::load_or_create(&config.key_file));
    let options = RestoreOptions {
        from,
        data_dir: config.data_dir.clone(),
        archive_dir: config.archive_dir(),
        force,
        sealer: key.and_then(Result::ok).map(|key| key.sealer()),
        now: now_ms(),
    };
    let done = restore(&options, &mut tell);
    output::progress("");
    let RestoreReport { manifest, kept_aside, archive, another_key } =
        done.map_err(|error| refused(&error))?;
    let place = config.data_dir.display().to_string();
    out.show(&manifest, |_| table(&place, &manifest), || vec![place.clone()])?;
    if let Some(kept) = kept_aside {
        output::note(&format!("the state store that was there is kept as {}", kept.display()));
    }
    if another_key {
        output::note(&format!(
            "the backup was sealed under another key than {}: the hub will not start with it (LS0224)",
            config.key_file.display()
        ));
    }
    output::note(
        "the hub writes nothing after its start until every cluster of the backup has connected and told what happened since; `lockstep status` says whom it waits for",
    );
    let outcome = missing(archive.missing, "the backup");
    Ok(if another_key { Outcome::Findings } else { outcome })
}

fn missing(count: u64, place: &str) -> Outcome {
    if count == 0 {
        return Outcome::Done;
    }
    output::note(&format!("{count} archived tombstones that the state names are not in {place}"));
    Outcome::Findings
}

fn table(place: &str, manifest: &Manifest) -> Table {
    let Manifest { format: _, version, schema, taken_at, taken_at_ms: _, state, archive, counts } = manifest;
    let mut table = Table::new(&["WHAT", "HOLDS"], "");
    let mut row = |what: &str, holds: String| table.row(vec![Cell::from(what), Cell::from(holds)]);
    row("place", place.to_owned());
    row("taken", format!("{taken_at} by lockstep {version}"));
    row("state", format!("{} KiB, schema {schema}", state.bytes.div_ceil(1024)));
    row(
        "of which",
        format!(
            "{} clusters, {} objects, {} placements, {} policies, {} tombstones ({} not archived yet)",
            counts.clusters,
            counts.objects,
            counts.placements,
            counts.policies,
            counts.tombstones,
            counts.outbox
        ),
    );
    row("archive", format!("{} tombstones, {} KiB", archive.files, archive.bytes.div_ceil(1024)));
    table
}

fn tell(progress: Progress) {
    let share = |done: u64, all: u64| (done * 100).checked_div(all).unwrap_or(100).min(100);
    output::progress(&match progress {
        Progress::State(done, all) => format!("state store: {}%", share(done, all)),
        Progress::Checking => "checking the state store".to_owned(),
        Progress::Archive(done, all) => format!("archive: {done} of {all} tombstones"),
    });
}

fn refused(error: &BackupError) -> CliError {
    let (code, text) = (error.code(), error.to_string());
    let message = text.strip_prefix(&format!("{code}: ")).unwrap_or(&text).to_owned();
    let told = CliError::new(code, message, "");
    match std::error::Error::source(error) {
        Some(source) => told.caused_by(source),
        None => told,
    }
}
