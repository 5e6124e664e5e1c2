//! `list` and `show`: the runs in the repository.

use anyhow::{Result, bail};
use jiff::Timestamp;

use crate::catalog::{self, Catalog, Whose};
use crate::config::Config;
use crate::host::text;
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::Engine;
use crate::runs::{Downtime, Manifest, Record};
use crate::values::RunId;
use crate::{note, say};

/// Prints the complete runs, oldest first.
pub fn list(config: &Config, host: Option<&str>, json: bool) -> Result<()> {
    let Some(engine) = open::existing(config, &RootDirectory::host())? else {
        match json {
            true => text::out("[]"),
            false => say!(
                "no complete runs: there is no repository at {} yet, the first run creates it",
                config.repository.location
            ),
        }
        return Ok(());
    };
    let (mut runs, other_hosts) = complete_runs(&*engine, host)?;
    if let Some(other_hosts) = other_hosts {
        note!("{other_hosts}");
    }
    // The tables of every database would hide the runs; `show` prints them.
    runs.iter_mut().flat_map(|run| &mut run.databases).for_each(|database| database.tables.clear());
    if json {
        text::out(&text::json(&runs)?);
        return Ok(());
    }
    if runs.is_empty() {
        say!("no complete runs in {}", config.repository.location);
        return Ok(());
    }
    print_table(&runs);
    Ok(())
}

/// Prints one line for each run.
fn print_table(runs: &[Manifest]) {
    say!(
        "{:<22} {:<24} {:>8} {:>6} {:>7} {:>6} {:>12}  PARTS",
        "RUN",
        "FINISHED",
        "DOWNTIME",
        "STOP",
        "CAPTURE",
        "START",
        "SIZE"
    );
    for run in runs {
        let bytes: u64 = run.parts.iter().map(|part| part.bytes).sum();
        let parts: Vec<&str> = run.parts.iter().map(|part| part.name.as_str()).collect();
        let size = indicatif::BinaryBytes(bytes).to_string();
        let finished = run.finished.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let seconds_of = |seconds: fn(&Downtime) -> f64| {
            run.downtime
                .as_ref()
                .map_or_else(|| "-".to_owned(), |downtime| format!("{:.1}", seconds(downtime)))
        };
        let downtime = match (run.downtime_seconds, run.downtime_longer_than) {
            (None, Some(seconds)) => format!("> {seconds:.0} s"),
            (seconds, _) => {
                seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"))
            }
        };
        say!(
            "{:<22} {finished:<24} {downtime:>8} {:>6} {:>7} {:>6} {size:>12}  {}",
            run.id.to_string(),
            seconds_of(|downtime| downtime.stop),
            seconds_of(|downtime| downtime.capture),
            seconds_of(|downtime| downtime.start),
            parts.join(", ")
        );
    }
}

/// Prints one run: its manifest, or the record of a failed run.
pub fn show(config: Result<Config>, id: &RunId, json: bool) -> Result<()> {
    let root = &RootDirectory::host();
    let catalog = config
        .and_then(|config| Catalog::read(&*open::required(&config, root)?, Whose::Run(id), root));
    let records = Record::all(root, Timestamp::now())?;
    let record = records.into_iter().find(|record| record.id == *id);
    let found = match (&catalog, record) {
        (Ok(catalog), record) => match (catalog.find(id), record) {
            (Ok(run), record) => {
                let mut found = serde_json::to_value(&run.manifest)?;
                // The manifest was written before the run ended, so it lacks later warnings. Only
                // the run's own host has its record.
                let warnings =
                    record.map_or_else(|| run.manifest.warnings.clone(), |record| record.warnings);
                found["warnings"] = warnings.into();
                found
            }
            // The record must not hide that the run is damaged in the repository.
            (Err(_), Some(record)) if !catalog.unusable().any(|(run, _)| run == id) => {
                serde_json::to_value(record)?
            }
            (Err(error), _) => return Err(error),
        },
        (Err(_), Some(record)) => serde_json::to_value(record)?,
        (Err(error), None) => {
            bail!("there is no record of run {id}, and the repository cannot be read: {error:#}")
        }
    };
    if json {
        text::out(&text::json(&found)?);
    } else {
        print(&found, 0);
    }
    Ok(())
}

/// Prints JSON as indented lines.
fn print(value: &serde_json::Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let scalar =
        |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if value.is_object() || value.is_array() {
                    say!("{indent}{key}:");
                    print(value, depth + 1);
                } else {
                    say!("{indent}{key}: {}", scalar(value));
                }
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                if value.is_object() {
                    say!("{indent}-");
                    print(value, depth + 1);
                } else {
                    say!("{indent}- {}", scalar(value));
                }
            }
        }
        other => say!("{indent}{}", scalar(other)),
    }
}

/// Every complete run, oldest first, and a note about runs of other hosts. Logs runs that cannot be
/// read.
fn complete_runs(
    engine: &dyn Engine,
    host: Option<&str>,
) -> Result<(Vec<Manifest>, Option<String>)> {
    let catalog = Catalog::read(engine, Whose::asked(host, None), &RootDirectory::host())?;
    for (_, why) in catalog.unusable() {
        tracing::error!("{why}: it cannot be restored as a whole");
    }
    for run in catalog.ahead(Timestamp::now()) {
        tracing::warn!("{}: it is not taken for the newest", catalog::ahead(run));
    }
    let other_hosts = catalog.of_others();
    Ok((catalog.complete.into_iter().map(|run| run.manifest).collect(), other_hosts))
}
