//! `key`: manages the passwords that open the repository. Losing all of them loses every backup.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::{durable, random, text};
use crate::open;
use crate::paths::RootDirectory;
use crate::repository::{Engine, Key};
use crate::say;
use crate::values::SecretSource;

/// The maximum size of a password file in bytes.
const SIZE_MAX: i64 = 1 << 16;

/// The subcommands of `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add a key, whose password should be kept on another host.
    Add {
        /// The file with the new password. Created with a random password if it does not exist.
        #[arg(long, value_name = "FILE")]
        new_password_file: PathBuf,
    },
    /// Remove a key that is not the configured one.
    Remove {
        /// The key's id, as show prints it.
        id: String,
    },
    /// Replace the configured password by a new random one.
    Rotate,
}

/// Runs a subcommand.
pub fn key(config: &Config, command: &KeyCommand) -> Result<()> {
    let engine = open::required(config, &RootDirectory::host())?;
    match command {
        KeyCommand::Show { json } => show(&engine.keys()?, *json),
        KeyCommand::Add { new_password_file } => add(&*engine, new_password_file),
        KeyCommand::Remove { id } => remove(&*engine, id),
        KeyCommand::Rotate => rotate(config, &*engine),
    }
}

/// Removes the key whose id starts with `id`.
fn remove(engine: &dyn Engine, id: &str) -> Result<()> {
    let keys = engine.keys()?;
    let found: Vec<&Key> = keys.iter().filter(|key| key.id.starts_with(id)).collect();
    let [key] = found[..] else {
        let how_many = if found.is_empty() {
            "no key begins".to_owned()
        } else {
            format!("{} keys begin", found.len())
        };
        bail!("{how_many} with '{id}': see 'gitlab-backup key show'");
    };
    ensure!(
        !key.current,
        "key {} is the configured one: 'gitlab-backup key rotate' replaces it",
        key.id
    );
    engine.remove_key(&key.id)?;
    say!("removed key {}", key.id);
    Ok(())
}

fn show(keys: &[Key], json: bool) -> Result<()> {
    if json {
        text::out(&text::json(keys)?);
        return Ok(());
    }
    for key in keys {
        let mark = if key.current { '*' } else { ' ' };
        say!(
            "{mark} {}  {}  {}@{}",
            &key.id[..key.id.len().min(8)],
            key.created,
            key.user,
            key.host
        );
    }
    if keys.len() == 1 {
        say!(
            "this is the only key: create another with 'gitlab-backup key add --new-password-file \
             FILE' and keep its password on another host"
        );
    }
    Ok(())
}

fn add(engine: &dyn Engine, file: &Path) -> Result<()> {
    let file = std::path::absolute(file).context("the current directory is gone")?;
    let (directory, name) = Directory::of(&file)?;
    if directory.look(Path::new(&name))?.is_none() {
        let password = format!("{}\n", random::hex(32)?);
        directory.replace(&name, password.as_bytes(), 0o600)?;
        say!("created {}", text::path(&file));
    }
    // Another user who wrote the password, or can read it, could open every backup.
    let mut found = directory.file(Path::new(&name))?;
    let stat =
        rustix::fs::fstat(&found).with_context(|| format!("cannot inspect {}", file.display()))?;
    let closed = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    ensure!(
        closed,
        "{} is not yours alone: its owner, and everybody who can read it, could open every \
         backup. 'chown root' and 'chmod 600' it, or name another file",
        file.display()
    );
    ensure!(stat.st_size <= SIZE_MAX, "{} is too large for a password", file.display());
    // Copy the inspected file: the name may refer to another file by now.
    let mut staged = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    std::io::copy(&mut found, &mut staged).context("cannot write a temporary file")?;
    engine.add_key(staged.path())?;
    say!(
        "the password in {} now opens the repository too: keep a copy on another host",
        file.display()
    );
    Ok(())
}

/// Replaces the configured password. The new key is added before the password file is replaced, and
/// the old key is removed afterwards, so that the file opens the repository at any time.
fn rotate(config: &Config, engine: &dyn Engine) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else {
        bail!(
            "the password is a credential of the service manager, which this command cannot \
             replace: add a key and remove the old one"
        );
    };
    let old = engine
        .keys()?
        .into_iter()
        .find(|key| key.current)
        .context("the repository does not show which key is the configured one")?;
    let password = format!("{}\n", random::hex(32)?);
    let mut staged = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    staged.write_all(password.as_bytes()).context("cannot write a temporary file")?;
    engine.add_key(staged.path())?;
    // Sync the new key before the password file: after a power failure, the new password would be
    // useless without its key.
    rustix::fs::sync();
    durable::write(path, 0o600, password)?;
    // Remove the old key only if the new password opens the repository.
    let engine = open::outside(config)?;
    engine
        .probe()
        .context("the new password does not open the repository: the old key was kept")?;
    engine.remove_key(&old.id)?;
    say!(
        "{} has a new password, and the old one no longer opens the repository: keep a copy of \
         the new one on another host",
        path.display()
    );
    Ok(())
}
