//! `key`: the passwords that open the repository. Losing all of them loses every backup.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use crate::config::Config;
use crate::host::beneath::Directory;
use crate::host::{durable, random, text};
use crate::open;
use crate::repository::{Engine, Key};
use crate::say;
use crate::values::SecretSource;

/// No password is longer.
const LARGEST: i64 = 1 << 16;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add a key, to be kept somewhere else.
    Add {
        /// The file with its password; made with a random one if it is not there.
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

/// Does it.
pub fn key(config: &Config, command: &KeyCommand) -> Result<()> {
    let engine = open::required(config)?;
    match command {
        KeyCommand::Show { json } => show(&engine.keys()?, *json),
        KeyCommand::Add { new_password_file } => add(&*engine, new_password_file),
        KeyCommand::Remove { id } => {
            let keys = engine.keys()?;
            let found: Vec<&Key> =
                keys.iter().filter(|key| key.id.starts_with(id.as_str())).collect();
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
        KeyCommand::Rotate => rotate(config, &*engine),
    }
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
            "this is the only key: 'gitlab-backup key add --new-password-file FILE' makes another, to be kept somewhere else"
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
        say!("made {}", text::path(&file));
    }
    // Whoever could have written it, or reads it, has every backup.
    let mut found = directory.file(Path::new(&name))?;
    let stat =
        rustix::fs::fstat(&found).with_context(|| format!("cannot look at {}", file.display()))?;
    let closed = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    ensure!(
        closed,
        "{} is not yours alone: whoever made it or reads it would open every backup. 'chown root', 'chmod 600', or name another",
        file.display()
    );
    ensure!(stat.st_size <= LARGEST, "{} is larger than a password", file.display());
    // What was looked at, whatever has the name by now.
    let mut staged = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    std::io::copy(&mut found, &mut staged).context("cannot write a temporary file")?;
    engine.add_key(staged.path())?;
    say!(
        "the repository is opened by the password in {} as well: keep a copy somewhere else",
        file.display()
    );
    Ok(())
}

/// Killed at any point, the password file holds one that opens the repository: the new key is added
/// before and the old one removed after it is replaced.
fn rotate(config: &Config, engine: &dyn Engine) -> Result<()> {
    let SecretSource::File(path) = &config.repository.password else {
        bail!(
            "the password is a credential of the service manager, which cannot be replaced from here: add a key and remove the old one"
        );
    };
    let old = engine
        .keys()?
        .into_iter()
        .find(|key| key.current)
        .context("it cannot be told which key is the configured one")?;
    let password = format!("{}\n", random::hex(32)?);
    let mut staged = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    staged.write_all(password.as_bytes()).context("cannot write a temporary file")?;
    engine.add_key(staged.path())?;
    // The key first: a password that outlives a loss of power opens nothing without it.
    rustix::fs::sync();
    durable::write(path, 0o600, password)?;
    // Opened anew: only what the new password opens may remove the old key.
    let engine = open::outside(config)?;
    engine
        .probe()
        .context("the new password does not open the repository: the old key was kept")?;
    engine.remove_key(&old.id)?;
    say!(
        "{} holds a new password; the old one opens nothing any more: keep a copy of the new one somewhere else",
        path.display()
    );
    Ok(())
}
