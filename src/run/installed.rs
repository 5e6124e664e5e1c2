//! Checks that the installed units are those that this program generates from the configuration. A
//! run by other units would not do what is configured.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::finding::Finding;
use crate::host::{own, process, remedy};
use crate::paths::RootDirectory;
use crate::systemd::ServiceManager;
use crate::units::render::HEADER;
use crate::units::{self, Restore, Unit, UnitFile};

/// The directory of the installed units.
pub const DIRECTORY: &str = "/etc/systemd/system";
/// The prefix of all unit names.
const PREFIX: &str = "gitlab-backup";
/// How many units a finding names. The others are only counted.
const NAMED: usize = 5;
/// The subject of the finding.
const WHAT: &str = "units";

/// Compares the installed units with those that the configuration needs, and asks systemd whether
/// it has read them.
pub async fn check(config: &Config, root: &RootDirectory, manager: &dyn ServiceManager) -> Finding {
    compare(config, root, manager).await.unwrap_or_else(|error| Finding::of(WHAT, Err(error)))
}

async fn compare(
    config: &Config,
    root: &RootDirectory,
    manager: &dyn ServiceManager,
) -> Result<Finding> {
    let directory = &root.at(DIRECTORY);
    let files = generate_expected(config, directory)?;
    if !files.iter().any(|file| directory.join(&file.name).exists()) {
        let words = format!("they are not installed: '{}'", remedy::install());
        return Ok(Finding::warning(WHAT, words));
    }
    let mut differing = find_differing(directory, &files)?;
    let masked: Vec<String> =
        masked(directory, &differing).into_iter().map(str::to_owned).collect();
    let (dispensable, needed): (Vec<String>, Vec<String>) =
        masked.into_iter().partition(|name| is_dispensable(name));
    if !needed.is_empty() {
        let needed = needed.join(" ");
        bail!("masked, so that no run can be made: {needed}: {}", remedy::unmask(&needed));
    }
    differing.retain(|name| !dispensable.contains(name));
    ensure!(
        differing.is_empty(),
        "not as this program and configuration would have them: {}: '{}'",
        name_some(&differing),
        remedy::install()
    );
    ensure_unconditional(&files, manager).await?;
    let outdated = find_outdated(&files, manager).await?;
    Ok(if !outdated.is_empty() {
        // Only a warning: a run does not need a drop-in that systemd has not read yet.
        let words = format!(
            "systemd has not read them as they are now: {}: 'systemctl daemon-reload'",
            name_some(&outdated)
        );
        Finding::warning(WHAT, words)
    } else if !dispensable.is_empty() {
        let words = format!("masked, and so not started: {}", dispensable.join(" "));
        Finding::warning(WHAT, words)
    } else {
        Finding::of(WHAT, Ok(format!("{} in {}", files.len(), directory.display())))
    })
}

/// Generates the units that the configuration needs. Paths of the configuration and of this program
/// are written as in the units in `directory` if they lead to the same files.
fn generate_expected(config: &Config, directory: &Path) -> Result<Vec<UnitFile>> {
    // On NixOS the configuration in /etc is a link, and the units name the target of the link.
    let resolved = config.source.canonicalize().map(|source| Config { source, ..config.clone() });
    let named = |resolved: &&Config| is_named_by_units(resolved, directory);
    let config = resolved.as_ref().ok().filter(named).unwrap_or(config);
    let this_program = std::env::current_exe().context("cannot find this program's own path")?;
    // The units may call a link to this program, or a wrapper of it.
    let installed = program_of_units(directory).filter(|program| process::is_own(program));
    units::generate(config, &installed.unwrap_or(this_program))
}

/// The program that the installed units call.
fn program_of_units(directory: &Path) -> Option<PathBuf> {
    let content = own::read_text(directory.join(Unit::Run.to_string())).ok()?;
    let words = content.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let program = words.trim_start_matches([':', '"']).split(['"', ' ']).next()?;
    Some(program.into())
}

/// Whether the installed units name this configuration file.
fn is_named_by_units(config: &Config, directory: &Path) -> bool {
    let source = config.source.to_string_lossy();
    let run = directory.join(Unit::Run.to_string());
    own::read_text(run).is_ok_and(|content| content.contains(&format!("\"{source}\"")))
}

/// Finds the units of `files` that are missing or have another content, and installed units that
/// are not in `files`.
///
/// # Errors
/// If the directory cannot be read.
pub fn find_differing(directory: &Path, files: &[UnitFile]) -> Result<Vec<String>> {
    let mut different: Vec<String> = files
        .iter()
        .filter(|file| !is_as_wanted(directory, file))
        .map(|file| file.name.clone())
        .collect();
    different.extend(
        list_installed(directory)?
            .into_iter()
            .filter(|name| !files.iter().any(|file| file.name == *name)),
    );
    Ok(different)
}

/// Whether the installed unit has the content of `file`.
pub fn is_as_wanted(directory: &Path, file: &UnitFile) -> bool {
    own::read(directory.join(&file.name)).is_ok_and(|found| found == file.content.as_bytes())
}

/// Lists the units in `directory` that this program generated. Empty if there is no such directory.
///
/// # Errors
/// If the directory cannot be read.
pub fn list_installed(directory: &Path) -> Result<Vec<String>> {
    let entries = match own::entries(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && is_ours(&directory.join(&name)) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The units whose files or drop-ins have changed since systemd read them.
async fn find_outdated(files: &[UnitFile], manager: &dyn ServiceManager) -> Result<Vec<String>> {
    let mut outdated = Vec::new();
    for file in files {
        if manager.state(&file.name).await?.needs_reload {
            outdated.push(file.name.clone());
        }
    }
    Ok(outdated)
}

/// Fails if a drop-in adds a condition to a unit that starts a run or starts GitLab after it: if
/// the condition is not met, systemd skips the unit without an error. A condition on any other unit
/// fails the run.
async fn ensure_unconditional(files: &[UnitFile], manager: &dyn ServiceManager) -> Result<()> {
    let needed = [
        (Unit::Resume, "nothing starts GitLab again"),
        (Unit::Staging, "no run starts, and nothing is reported"),
        (Unit::Run, "no run starts, and nothing is reported"),
    ];
    for (unit, so) in needed {
        let unit = unit.to_string();
        let Some(file) = files.iter().find(|file| file.name == unit) else { continue };
        let own: Vec<&str> = file.content.lines().collect();
        let mut others = manager.state(&unit).await?.conditions;
        others.retain(|condition| !own.contains(&condition.as_str()));
        if !others.is_empty() {
            let conditions = others.join(", ");
            bail!(
                "{unit} has {conditions} by a drop-in: if that is not met, {so}. Remove it: \
                 'systemctl cat {unit}' shows where it is"
            );
        }
    }
    Ok(())
}

/// The units of `names` that are masked. `install` does not overwrite a mask.
pub fn masked<'a>(directory: &Path, names: &'a [String]) -> Vec<&'a str> {
    let masked = |name: &&String| {
        own::link(&directory.join(name)).is_ok_and(|target| target == Path::new("/dev/null"))
    };
    names.iter().filter(masked).map(String::as_str).collect()
}

/// Whether a run does not need the unit: the units of the schedule, of `verify` and of restores.
fn is_dispensable(name: &str) -> bool {
    let others = [Unit::Timer, Unit::VerifyTimer, Unit::Calendar, Unit::Verify];
    others.iter().any(|unit| unit.to_string() == name)
        || name.starts_with(Unit::from(Restore::Target).to_string().trim_end_matches(".target"))
}

/// The first names as a list, with the number of the others.
fn name_some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names[..names.len().min(NAMED)].join(", "))
}

/// Whether this program generated the file: a regular file whose first line says so.
pub fn is_ours(path: &Path) -> bool {
    let mut start = vec![0; HEADER.len()];
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
        && own::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == HEADER.as_bytes()
}
