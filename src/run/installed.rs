//! Whether the units on the host are those of the configuration: a run by others is one that nobody
//! has asked for.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::config::Config;
use crate::finding::Finding;
use crate::host::{own, process, remedy};
use crate::systemd::{Manager, ServiceManager};
use crate::units::render::HEADER;
use crate::units::{self, Restore, Unit, UnitFile};

/// Where the units are.
pub const DIRECTORY: &str = "/etc/systemd/system";
/// What the names of all begin with.
const PREFIX: &str = "gitlab-backup";
/// How many are named.
const NAMED: usize = 5;

/// Compares the files, and asks systemd whether it has read them.
pub async fn finding(config: &Config) -> Finding {
    const WHAT: &str = "units";
    let files = match expected(config) {
        Ok(files) => files,
        Err(error) => return Finding::of(WHAT, Err(error)),
    };
    let directory = Path::new(DIRECTORY);
    if !files.iter().any(|file| directory.join(&file.name).exists()) {
        return Finding::warning(WHAT, format!("they are not installed: '{}'", remedy::install()));
    }
    let mut unlike = match different(directory, &files) {
        Ok(names) => names,
        Err(error) => return Finding::of(WHAT, Err(error)),
    };
    let masked: Vec<String> = masked(directory, &unlike).into_iter().map(str::to_owned).collect();
    let (idle, needed): (Vec<String>, Vec<String>) =
        masked.into_iter().partition(|name| of_no_run(name));
    if !needed.is_empty() {
        let needed = needed.join(" ");
        return Finding::of(
            WHAT,
            Err(anyhow!(
                "masked, so that no run can be made: {needed}: {}",
                remedy::unmask(&needed)
            )),
        );
    }
    unlike.retain(|name| !idle.contains(name));
    if !unlike.is_empty() {
        let words = format!(
            "not as this program and configuration would have them: {}: '{}'",
            some(&unlike),
            remedy::install()
        );
        return Finding::of(WHAT, Err(anyhow!("{words}")));
    }
    match conditional(&files).await {
        Ok(None) => {}
        Ok(Some(words)) => return Finding::of(WHAT, Err(anyhow!("{words}"))),
        Err(error) => return Finding::of(WHAT, Err(error)),
    }
    match unread(&files).await {
        Ok(None) if !idle.is_empty() => {
            Finding::warning(WHAT, format!("masked, and so not started: {}", idle.join(" ")))
        }
        Ok(None) => Finding::of(WHAT, Ok(format!("{} in {DIRECTORY}", files.len()))),
        // What is not in memory is read anew when it is started: a drop-in that waits for a reload
        // is no reason for no backup.
        Ok(Some(words)) => Finding::warning(WHAT, words),
        Err(error) => Finding::of(WHAT, Err(error)),
    }
}

fn expected(config: &Config) -> Result<Vec<UnitFile>> {
    // On NixOS /etc has a link to the configuration, and the units name what it leads to.
    let followed = config.source.canonicalize().map(|source| Config { source, ..config.clone() });
    let named = followed.as_ref().ok().filter(|followed| names(followed)).unwrap_or(config);
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    // A link that leads here is as good, or a wrapper that has called us.
    let called = called().filter(|called| process::is_own(called));
    units::generate(named, &called.unwrap_or(own))
}

/// The program that the units call.
fn called() -> Option<PathBuf> {
    let content = own::read_text(Path::new(DIRECTORY).join(Unit::Run.to_string())).ok()?;
    let words = content.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let program = words.trim_start_matches([':', '"']).split(['"', ' ']).next()?;
    Some(program.into())
}

/// Whether the units are called with this configuration's file.
fn names(config: &Config) -> bool {
    let source = config.source.to_string_lossy();
    let run = Path::new(DIRECTORY).join(Unit::Run.to_string());
    own::read_text(run).is_ok_and(|content| content.contains(&format!("\"{source}\"")))
}

/// The files that are not there or have another content, and those of ours that are not wanted any
/// more.
///
/// # Errors
/// If the directory cannot be read.
pub fn different(directory: &Path, files: &[UnitFile]) -> Result<Vec<String>> {
    let mut different: Vec<String> = files
        .iter()
        .filter(|file| !is_as_wanted(directory, file))
        .map(|file| file.name.clone())
        .collect();
    different.extend(
        ours(directory)?.into_iter().filter(|name| !files.iter().any(|file| file.name == *name)),
    );
    Ok(different)
}

/// Whether a unit is there as it should be.
pub fn is_as_wanted(directory: &Path, file: &UnitFile) -> bool {
    own::read(directory.join(&file.name)).is_ok_and(|found| found == file.content.as_bytes())
}

/// The units that we wrote; none where there is no directory.
///
/// # Errors
/// If the directory cannot be read.
pub fn ours(directory: &Path) -> Result<Vec<String>> {
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

/// What to do about units that systemd has not read as they are, drop-ins included.
async fn unread(files: &[UnitFile]) -> Result<Option<String>> {
    let manager = Manager::connect().await?;
    let mut old = Vec::new();
    for file in files {
        if manager.state(&file.name).await?.needs_reload {
            old.push(file.name.clone());
        }
    }
    Ok((!old.is_empty()).then(|| {
        format!(
            "systemd has not read them as they are now: {}: 'systemctl daemon-reload'",
            some(&old)
        )
    }))
}

/// What is wrong if somebody has made the start of a run, or that of GitLab after it, depend on
/// something. What else depends on something fails the run that it is missing in.
async fn conditional(files: &[UnitFile]) -> Result<Option<String>> {
    let manager = Manager::connect().await?;
    let needed = [
        (Unit::Resume, "nothing starts GitLab again"),
        (Unit::Staging, "no run starts, and nobody is told"),
        (Unit::Run, "no run starts, and nobody is told"),
    ];
    for (unit, so) in needed {
        let unit = unit.to_string();
        let Some(file) = files.iter().find(|file| file.name == unit) else { continue };
        let own: Vec<&str> = file.content.lines().collect();
        let mut others = manager.state(&unit).await?.conditions;
        others.retain(|condition| !own.contains(&condition.as_str()));
        if !others.is_empty() {
            let conditions = others.join(", ");
            return Ok(Some(format!(
                "{unit} has {conditions} by a drop-in: where that is not so, {so}. Remove it: 'systemctl cat {unit}'"
            )));
        }
    }
    Ok(None)
}

/// Those of `names` that are masked: nothing of ours would be written over that.
pub fn masked<'a>(directory: &Path, names: &'a [String]) -> Vec<&'a str> {
    let masked = |name: &&String| {
        own::link(&directory.join(name)).is_ok_and(|target| target == Path::new("/dev/null"))
    };
    names.iter().filter(masked).map(String::as_str).collect()
}

/// Whether a run goes well without the unit: it is the clock's, looks at what runs have stored, or
/// is of a restore.
fn of_no_run(name: &str) -> bool {
    let others = [Unit::Timer, Unit::VerifyTimer, Unit::Calendar, Unit::Verify];
    others.iter().any(|unit| unit.to_string() == name)
        || name.starts_with(Unit::from(Restore::Target).to_string().trim_end_matches(".target"))
}

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names[..names.len().min(NAMED)].join(", "))
}

/// Whether we wrote a file: it says so in its first line, and it is a file.
pub fn is_ours(path: &Path) -> bool {
    let mut start = vec![0; HEADER.len()];
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
        && own::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == HEADER.as_bytes()
}
