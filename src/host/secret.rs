//! Finds and reads secrets.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::paths::TMP;
use crate::values::SecretSource;

use super::{own, process, remedy};

/// Where the service manager looks for credentials: those that it has received itself, then its
/// stores. systemd.exec(5) `LoadCredential=`.
const STORES: [&str; 4] =
    ["/run/credentials/@system", "/etc/credstore", "/run/credstore", "/usr/lib/credstore"];
/// The same for encrypted credentials.
const ENCRYPTED_STORES: [&str; 4] = [
    "/run/credentials/@encrypted",
    "/run/credstore.encrypted",
    "/etc/credstore.encrypted",
    "/usr/lib/credstore.encrypted",
];

/// The file with the secret: the unit's credential, else the configured file or the credential in
/// the service manager's stores, which a command of the admin can read as well.
pub fn file(source: &SecretSource, credential: &str) -> Result<PathBuf> {
    let name = match source {
        SecretSource::Encrypted(name) => name,
        _ => credential,
    };
    if let Some(path) = given(name) {
        return Ok(path);
    }
    let path = place(source)?;
    match source {
        SecretSource::Encrypted(name) => decrypt(&path, name),
        _ => Ok(path),
    }
}

/// The file of a credential, if the unit has received it: systemd.exec(5) `$CREDENTIALS_DIRECTORY`.
pub fn given(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
}

/// The file in which the secret is kept, encrypted or not.
fn place(source: &SecretSource) -> Result<PathBuf> {
    match source {
        SecretSource::File(path) if path.exists() => Ok(path.clone()),
        SecretSource::File(path)
            if remedy::passwords().iter().any(|own| path == Path::new(own)) =>
        {
            bail!(
                "{} does not exist: '{}' creates it for a new repository",
                path.display(),
                remedy::password()
            )
        }
        SecretSource::File(path) => bail!("{} does not exist", path.display()),
        SecretSource::Credential(name) => stored(&STORES, name),
        SecretSource::Encrypted(name) => stored(&ENCRYPTED_STORES, name),
    }
}

fn stored(stores: &[&str], name: &str) -> Result<PathBuf> {
    let found = stores.iter().map(|store| Path::new(store).join(name)).find(|path| path.exists());
    found.with_context(|| format!("credential '{name}' is in none of {}", stores.join(", ")))
}

/// Decrypts a credential to a file in memory, which this process and its children can open as long
/// as this process lives.
fn decrypt(path: &Path, name: &str) -> Result<PathBuf> {
    let mut command = Command::new("systemd-creds");
    command.arg(format!("--name={name}")).arg("decrypt").arg(path).arg("-").stdin(Stdio::null());
    let output = command
        .output()
        .context("cannot run systemd-creds, which decrypts credentials since systemd 250")?;
    ensure!(
        output.status.success(),
        "{} cannot be decrypted: {}",
        path.display(),
        process::tail(&output.stderr)
    );
    let keep = || -> io::Result<PathBuf> {
        let mut memory = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        memory.set_permissions(Permissions::from_mode(0o400))?;
        memory.write_all(&output.stdout)?;
        // Never closed: the path is valid as long as the descriptor is open.
        Ok(format!("/proc/{}/fd/{}", std::process::id(), memory.into_raw_fd()).into())
    };
    keep().context("cannot keep a decrypted credential in memory")
}

/// Whether units have a private directory at this path, and cannot see the host's.
pub fn is_hidden(path: &Path) -> bool {
    TMP.iter().any(|hidden| path.starts_with(hidden))
}

/// The message about a secret that only units can read.
pub const OUT_OF_REACH: &str = "its password is a credential that only units are given: not tried";

/// Whether the secret is a credential that this process cannot find because it is not a unit: a
/// drop-in may pass it to the units.
pub fn is_out_of_reach(source: &SecretSource) -> bool {
    !matches!(source, SecretSource::File(_))
        && std::env::var_os("INVOCATION_ID").is_none()
        && place(source).is_err()
}

/// Reads the secret, without the line end that editors add.
pub fn read(source: &SecretSource, credential: &str) -> Result<String> {
    let path = file(source, credential)?;
    let text = own::read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
