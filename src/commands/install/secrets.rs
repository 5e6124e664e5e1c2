//! The repository's directory and password, which are made once.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::config::Config;
use crate::config::host::Host;
use crate::host::{durable, own, random, remedy, text};
use crate::open;
use crate::runs::Newest;
use crate::values::SecretSource;

use super::Changes;

/// Makes what is not there. Where not `live`, this is another host's tree, and nothing but that is
/// looked at.
///
/// # Errors If a repository is there, or has been, that a new password would not open; if that
/// cannot be told; if the password is somebody else's to provide.
pub(super) fn make(config: &Config, host: &Host, live: bool, changes: &mut Changes) -> Result<()> {
    let repository = config.repository.directory().map(|directory| host.path(directory));
    let held = repository.as_ref().filter(|directory| directory.join("config").exists());
    let vacant = repository.is_some() && held.is_none();
    if let Some(words) = Newest::lost(&config.repository.location).filter(|_| live && vacant) {
        bail!("{words}");
    }
    if let Some(directory) = repository.as_ref().filter(|directory| !directory.exists()) {
        own::make_closed(directory)?;
        changes.add("made", directory);
    }
    let SecretSource::File(file) = &config.repository.password else { return Ok(()) };
    let path = host.path(file);
    if path.exists() {
        return Ok(());
    }
    if let Some(directory) = held {
        bail!(
            "{} is not there, and {} holds a repository: put your copy of its password back; a new one would not open it",
            path.display(),
            directory.display()
        );
    }
    let made = remedy::passwords();
    ensure!(
        made.iter().any(|own| file == Path::new(own)),
        "{} is not there, and [repository] password-file names it: whoever provides it has not, or not yet. One is made only where none is named, in {}",
        path.display(),
        made[0]
    );
    let password = format!("{}\n", random::hex(32)?);
    if live && repository.is_none() {
        open::ensure_none(&config.repository, &password).with_context(|| {
            format!(
                "{} is not there, and a new password is made only for a new repository. If there is one at {} already, put your copy of its password back",
                path.display(),
                config.repository.location
            )
        })?;
    }
    let directory = path.parent().context("the password file has no directory")?;
    own::make(directory)?;
    if let Some(words) = open::lost_with_a_reboot(&config.repository, directory).filter(|_| live) {
        bail!("{} is not there, and no password is made: {words}", path.display());
    }
    durable::write(&path, 0o600, password)?;
    changes.add("made", &path);
    text::out(&format!(
        "\n  ATTENTION: {} is the only key to every backup that will be made.\n  \
         Keep a copy of it somewhere else now: without it nothing can ever be restored.\n",
        text::path(&path)
    ));
    Ok(())
}
