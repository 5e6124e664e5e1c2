//! The repository's directory and password, which are created once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::config::host::Host;
use crate::host::{durable, own, random, remedy, text};
use crate::open;
use crate::paths::RootDirectory;
use crate::runs::Newest;
use crate::values::SecretSource;

use super::Changes;

/// Creates the directory and the password if they are missing. If not `live`, `host` is another
/// host's directory tree, and nothing else is inspected.
///
/// # Errors
/// If there is, was or may be a repository that a new password would not open; if an admin must
/// provide the password.
pub(super) fn create(
    config: &Config,
    host: &Host,
    live: bool,
    changes: &mut Changes,
) -> Result<()> {
    let repository = config.repository.directory().map(|directory| host.path(directory));
    let held = repository.as_ref().filter(|directory| directory.join("config").exists());
    let vacant = repository.is_some() && held.is_none();
    let root = &RootDirectory::host();
    let lost = Newest::lost(root, &config.repository.location);
    if let Some(words) = lost.filter(|_| live && vacant) {
        bail!("{words}");
    }
    if let Some(directory) = repository.as_ref().filter(|directory| !directory.exists()) {
        own::make_closed(directory)?;
        changes.add("created", directory);
    }
    let SecretSource::File(file) = &config.repository.password else { return Ok(()) };
    let path = host.path(file);
    if path.exists() {
        return Ok(());
    }
    ensure_creatable(&path, file, held.map(PathBuf::as_path))?;
    let password = format!("{}\n", random::hex(32)?);
    if live && repository.is_none() {
        open::ensure_none(&config.repository, root, &password).with_context(|| {
            format!(
                "{} is missing, and a new password is created only for a new repository. If there \
                 is one at {} already, put your copy of its password back",
                path.display(),
                config.repository.location
            )
        })?;
    }
    let directory = path.parent().context("the password file has no directory")?;
    own::make(directory)?;
    if let Some(words) = open::lost_with_a_reboot(&config.repository, directory).filter(|_| live) {
        bail!("{} is missing, and no password is created: {words}", path.display());
    }
    durable::write(&path, 0o600, password)?;
    changes.add("created", &path);
    text::out(&format!(
        "\n  ATTENTION: {} is the only key to all backups.\n  Keep a copy in another place, now: \
         without it nothing can ever be restored.\n",
        text::path(&path)
    ));
    Ok(())
}

/// Fails if the password `file`, which is missing at `path`, must not be created: because the
/// directory `held` holds a repository that a new one would not open, or because an admin names the
/// file.
fn ensure_creatable(path: &Path, file: &Path, held: Option<&Path>) -> Result<()> {
    if let Some(directory) = held {
        bail!(
            "{} is missing, and {} holds a repository: put your copy of its password back; a new \
             one would not open it",
            path.display(),
            directory.display()
        );
    }
    let created = remedy::passwords();
    ensure!(
        created.iter().any(|own| file == Path::new(own)),
        "{} is missing, and [repository] password-file names it: create it. Without that key, a \
         password is created in {}",
        path.display(),
        created[0]
    );
    Ok(())
}
