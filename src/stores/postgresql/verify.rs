//! Verifies the dumps of a run: reads them with pg_restore, which runs confined because their
//! contents are not trusted.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::User;
use rustix::fs::FileType;

use super::{drill, versions};
use crate::config::Config;
use crate::finding::Finding;
use crate::host::confined::{self, Confinement};
use crate::runs::{Manifest, Part};
use crate::stores::inspection::{Inspection, entries, patience};

/// Reports whether each dump is readable, and the results of the drill.
pub(super) async fn verify(
    inspection: &mut Inspection<'_>,
    manifest: &Manifest,
    part: &Part,
    place: &Path,
) -> Result<()> {
    inspection.extract(part, place)?;
    let dumps = list_dumps(part, place)?;
    for (name, path) in &dumps {
        let result = check_readable(inspection.config, path, inspection.user.as_ref());
        inspection.report(Finding::of(format!("database {name}"), result));
    }
    if inspection.depth.drill {
        let Inspection { config, scratch, report, .. } = inspection;
        drill::restore(config, manifest, &dumps, scratch, *report).await?;
    }
    Ok(())
}

/// Lists the dumps in a part that is extracted at `place`: the name and path of each directory.
fn list_dumps(part: &Part, place: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let directories =
        entries(part, place)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(directories.map(|(path, _)| (name(&path), path)).collect())
}

/// Lets pg_restore read a dump's table of contents.
fn check_readable(config: &Config, path: &Path, user: Option<&User>) -> Result<String> {
    let program = versions::path_of("pg_restore", config.postgresql.as_ref());
    let mut command = Confinement::new(user, path).command(&program);
    let list = confined::run(command.arg("--list").arg(path), "pg_restore", patience(0))?;
    let tables = list.lines().filter(|line| line.contains(" TABLE DATA ")).count();
    Ok(format!("pg_restore reads it, {tables} tables with data"))
}
