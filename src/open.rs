//! The repository, opened with the password where this process finds it.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::StatVfsMountFlags;
use tempfile::NamedTempFile;

use crate::config::{Config, Repository};
use crate::host::{mounts, own, remedy, secret};
use crate::paths;
use crate::repository::{self, Engine};
use crate::runs::Newest;
use crate::units::render::credential;
use crate::values::SecretSource;

/// For a unit of a run: its key is kept for the units that follow, until the run ends.
pub(crate) fn in_run(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, Some(Path::new(paths::REPOSITORY_KEY)))
}

/// For a command, which leaves nothing behind.
pub fn outside(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, None)
}

/// The same, if there is a repository: before the first run there may be none, and no password for
/// it either.
///
/// # Errors
/// If it cannot be told, or opened.
pub fn existing(config: &Config) -> Result<Option<Box<dyn Engine>>> {
    // What is not there needs no password to be seen; what cannot be looked at may well be there.
    let vacant = |directory: &Path| match own::entries(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if config.repository.directory().is_some_and(vacant) {
        return match Newest::lost(&config.repository.location) {
            Some(words) => bail!("{words}"),
            None => Ok(None),
        };
    }
    let engine = outside(config)?;
    Ok(is_there(config, &*engine)?.then_some(engine))
}

/// The same, where there must be one.
///
/// # Errors
/// If there is none, or it cannot be told.
pub fn required(config: &Config) -> Result<Box<dyn Engine>> {
    existing(config)?.with_context(|| {
        format!(
            "there is no repository at {} yet: the first run makes it",
            config.repository.location
        )
    })
}

/// Whether there is a repository, or one can be made.
///
/// # Errors If there is none and this host has stored runs in it: it is not mounted, or gone. If
/// something else is there, or it cannot be told.
pub fn is_there(config: &Config, engine: &dyn Engine) -> Result<bool> {
    if engine.is_there()? {
        return Ok(true);
    }
    if let Some(words) = Newest::lost(&config.repository.location) {
        bail!("{words}");
    }
    engine.ensure_vacant()?;
    Ok(false)
}

/// Asks a place on another machine whether nothing is there yet: one that is there does not open by
/// a password that nobody knows.
///
/// # Errors
/// If a repository is there, or was, or it cannot be told.
pub fn ensure_none(place: &Repository, new_password: &str) -> Result<()> {
    let mut file = NamedTempFile::new().context("cannot make a temporary file")?;
    file.write_all(new_password.as_bytes())?;
    let engine = repository::open(place, file.path(), environment(place)?.as_deref(), None)?;
    ensure!(!engine.is_there()?, "there is a repository at {}", place.location);
    match Newest::lost(&place.location) {
        Some(words) => bail!("{words}"),
        None => Ok(()),
    }
}

/// What to say of a password of ours in `directory` that a reboot takes along, where the repository
/// outlives it.
pub fn lost_with_a_reboot(place: &Repository, directory: &Path) -> Option<String> {
    let outlives = place.directory().is_none_or(|directory| {
        directory
            .ancestors()
            .find(|path| path.exists())
            .is_some_and(|path| !own::is_in_memory(path))
    });
    (outlives && own::is_in_memory(directory)).then(|| {
        format!(
            "{} is in memory (tmpfs) and gone after a reboot, and then nothing opens the repository: put that directory on a disk, or name another \
             [repository] password-file",
            directory.display()
        )
    })
}

/// Where this process can read the repository's password.
fn password(config: &Config) -> Result<PathBuf> {
    password_is_there(config)?;
    secret::file(&config.repository.password, credential::REPOSITORY)
}

/// Whether a repository that is there has lost its password.
fn password_is_there(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    let repository =
        config.repository.directory().filter(|directory| directory.join("config").exists());
    if let Some(directory) =
        repository.filter(|_| secret::given(credential::REPOSITORY).is_none() && !path.exists())
    {
        bail!(
            "{} is not there, and {} holds a repository: put your copy back",
            path.display(),
            directory.display()
        );
    }
    Ok(())
}

/// Whether a password of ours outlives a reboot as the repository does. What others provide may be
/// there anew after each.
///
/// # Errors
/// If it does not.
pub fn outlives(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    let ours = remedy::passwords().iter().any(|own| path == Path::new(own)) && path.exists();
    match path
        .parent()
        .filter(|_| ours)
        .and_then(|directory| lost_with_a_reboot(&config.repository, directory))
    {
        Some(words) => bail!("{}: {words}", path.display()),
        None => Ok(()),
    }
}

/// Judges the password's file before units are given it: without it, or with too much, they do not
/// even start, and systemd does not say why.
///
/// # Errors
/// If it is not there, or is none.
pub fn judge_password_file(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    outlives(config)?;
    // Where the executor may not look, the service manager may.
    match own::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        _ if secret::is_hidden(path) => Ok(()),
        _ => judge_password(config),
    }
}

/// Judges the password, which a repository is to be made with.
///
/// # Errors
/// If it is not there, or is none.
pub fn judge_password(config: &Config) -> Result<()> {
    repository::judge_password(&password(config)?)
}

/// Whether the repository's file system takes anything.
///
/// # Errors
/// If it is mounted read-only.
pub fn writable(config: &Config) -> Result<()> {
    let Some(directory) = config.repository.directory() else { return Ok(()) };
    let system = rustix::fs::statvfs(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        !system.f_flag.contains(StatVfsMountFlags::RDONLY),
        "{} is on a file system that is mounted read-only",
        directory.display()
    );
    Ok(())
}

/// Whether the repository is apart from all that is saved, whatever links and mounts are on the way
/// to either: else a backup would take itself.
///
/// # Errors
/// With the path that it is in, or that is in it.
pub fn apart(config: &Config) -> Result<()> {
    let Some(directory) = config.repository.directory() else { return Ok(()) };
    let mounts = mounts::seen()?;
    // The file system that a path is in, and where in that: the same for every mount of it.
    let place = |path: &Path| {
        let real = own::canonical(path).ok()?;
        let mount = mounts::of(&mounts, &real)?;
        Some((own::device(&real).ok()?, mount.root.join(real.strip_prefix(&mount.target).ok()?)))
    };
    let Some((device, repository)) = place(directory) else { return Ok(()) };
    for path in &config.files.paths {
        let Some((other, saved)) = place(path) else { continue };
        ensure!(
            device != other || !repository.starts_with(&saved) && !saved.starts_with(&repository),
            "the repository {} and {} lie one inside the other, by a link or a mount: the backup would take itself",
            directory.display(),
            path.display()
        );
    }
    Ok(())
}

fn open(config: &Config, key_file: Option<&Path>) -> Result<Box<dyn Engine>> {
    repository::open(
        &config.repository,
        &password(config)?,
        environment(&config.repository)?.as_deref(),
        key_file,
    )
}

/// Where this process can read what `environment-file` has.
fn environment(place: &Repository) -> Result<Option<PathBuf>> {
    let file = place.environment_file.as_ref();
    file.map(|path| secret::file(&SecretSource::File(path.clone()), credential::ENVIRONMENT))
        .transpose()
}
