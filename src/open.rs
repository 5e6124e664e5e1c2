//! Opens the repository with the password that this process can read.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::StatVfsMountFlags;
use tempfile::NamedTempFile;

use crate::config::{Config, Repository};
use crate::host::{mounts, own, remedy, secret};
use crate::paths::{self, RootDirectory};
use crate::repository::{self, Engine};
use crate::runs::Newest;
use crate::units::render::credential;
use crate::values::SecretSource;

/// Opens the repository for a unit of a run. The key is kept for the later units of the run.
pub(crate) fn in_run(config: &Config, root: &RootDirectory) -> Result<Box<dyn Engine>> {
    open(config, Some(&root.at(paths::REPOSITORY_KEY)))
}

/// Opens the repository for a command. Nothing is kept.
pub fn outside(config: &Config) -> Result<Box<dyn Engine>> {
    open(config, None)
}

/// Opens the repository for a command, if there is one: before the first run there may be neither a
/// repository nor a password.
///
/// # Errors
/// If that cannot be determined, or if the repository cannot be opened.
pub fn existing(config: &Config, root: &RootDirectory) -> Result<Option<Box<dyn Engine>>> {
    // A missing or empty directory is recognized without the password. A directory that cannot be
    // read may hold a repository.
    let vacant = |directory: &Path| match own::entries(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if config.repository.directory().is_some_and(vacant) {
        return match Newest::lost(root, &config.repository.location) {
            Some(words) => bail!("{words}"),
            None => Ok(None),
        };
    }
    let engine = outside(config)?;
    Ok(exists(config, root, &*engine)?.then_some(engine))
}

/// Opens the repository for a command that needs one.
///
/// # Errors
/// If there is none, or if that cannot be determined.
pub fn required(config: &Config, root: &RootDirectory) -> Result<Box<dyn Engine>> {
    existing(config, root)?.with_context(|| {
        format!(
            "there is no repository at {} yet: the first run creates it",
            config.repository.location
        )
    })
}

/// Whether there is a repository; if not, one can be created.
///
/// # Errors
/// If there is none although this host has stored runs in it: it is not mounted, or lost. If the
/// directory has other files, or if it cannot be examined.
pub fn exists(config: &Config, root: &RootDirectory, engine: &dyn Engine) -> Result<bool> {
    if engine.exists()? {
        return Ok(true);
    }
    if let Some(words) = Newest::lost(root, &config.repository.location) {
        bail!("{words}");
    }
    engine.ensure_vacant()?;
    Ok(false)
}

/// Checks that there is no repository in a location on another machine yet. `new_password` would
/// not open an existing one.
///
/// # Errors
/// If there is or was a repository, or if that cannot be determined.
pub fn ensure_none(place: &Repository, root: &RootDirectory, new_password: &str) -> Result<()> {
    let mut file = NamedTempFile::new().context("cannot create a temporary file")?;
    file.write_all(new_password.as_bytes())?;
    let engine = repository::open(place, file.path(), environment(place)?.as_deref(), None)?;
    ensure!(!engine.exists()?, "there is a repository at {}", place.location);
    match Newest::lost(root, &place.location) {
        Some(words) => bail!("{words}"),
        None => Ok(()),
    }
}

/// An error message if a generated password in `directory` would be lost with a reboot while the
/// repository would not.
pub fn lost_with_a_reboot(place: &Repository, directory: &Path) -> Option<String> {
    let outlives = place.directory().is_none_or(|directory| {
        directory
            .ancestors()
            .find(|path| path.exists())
            .is_some_and(|path| !own::is_in_memory(path))
    });
    (outlives && own::is_in_memory(directory)).then(|| {
        format!(
            "{} is in memory (tmpfs) and gone after a reboot, and the repository cannot be \
             opened without it: put that directory on a disk, or name another [repository] \
             password-file",
            directory.display()
        )
    })
}

/// The file from which this process can read the repository's password.
fn password(config: &Config) -> Result<PathBuf> {
    ensure_password_exists(config)?;
    secret::file(&config.repository.password, credential::REPOSITORY)
}

/// Fails if there is a repository, but not its password.
fn ensure_password_exists(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    let repository =
        config.repository.directory().filter(|directory| directory.join("config").exists());
    if let Some(directory) =
        repository.filter(|_| secret::given(credential::REPOSITORY).is_none() && !path.exists())
    {
        bail!(
            "{} does not exist, and {} holds a repository: put your copy back",
            path.display(),
            directory.display()
        );
    }
    Ok(())
}

/// Checks that a generated password survives a reboot if the repository does. A password from
/// another source may be provided again after each reboot.
///
/// # Errors
/// If it does not survive.
pub fn ensure_password_survives_reboot(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    let generated = remedy::passwords().iter().any(|own| path == Path::new(own)) && path.exists();
    match path
        .parent()
        .filter(|_| generated)
        .and_then(|directory| lost_with_a_reboot(&config.repository, directory))
    {
        Some(words) => bail!("{}: {words}", path.display()),
        None => Ok(()),
    }
}

/// Checks the file with the password before systemd passes it to units: if it is missing or too
/// large, the units do not start, and systemd does not say why.
///
/// # Errors
/// If it is missing or invalid.
pub fn check_password_file(config: &Config) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else { return Ok(()) };
    ensure_password_survives_reboot(config)?;
    // systemd can read a file that the executor cannot.
    match own::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        _ if secret::is_hidden(path) => Ok(()),
        _ => check_password(config),
    }
}

/// Checks the password with which a repository will be created.
///
/// # Errors
/// If it is missing or invalid.
pub fn check_password(config: &Config) -> Result<()> {
    repository::check_password(&password(config)?)
}

/// Checks that the repository's file system can be written to.
///
/// # Errors
/// If it is mounted read-only.
pub fn ensure_writable(config: &Config) -> Result<()> {
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

/// Checks that the repository and the saved paths are not inside each other, also by links and
/// mounts: otherwise a backup would contain itself.
///
/// # Errors
/// With the path that contains the repository or is inside it.
pub fn ensure_apart(config: &Config) -> Result<()> {
    let Some(directory) = config.repository.directory() else { return Ok(()) };
    let mounts = mounts::seen()?;
    // The file system of a path, and the path inside it: the same for all mounts.
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
            "the repository {} and {} lie one inside the other, by a link or a mount: the backup \
             would take itself",
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

/// The file from which this process can read the variables of `environment-file`.
fn environment(place: &Repository) -> Result<Option<PathBuf>> {
    let file = place.environment_file.as_ref();
    file.map(|path| secret::file(&SecretSource::File(path.clone()), credential::ENVIRONMENT))
        .transpose()
}
