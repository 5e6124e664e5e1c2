//! A server's files on this host, touched with its own rights and nobody else's: where they are is
//! what it says.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::StatVfsMountFlags;

use crate::host::beneath::{self, Directory};
use crate::host::identity::Account;

use super::process::Behind;
use super::server::Server;

/// Where a server of this host keeps its file.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's process.
    pub process: Behind,
    /// Its directory.
    pub directory: PathBuf,
    /// Its RDB file's name there.
    pub name: OsString,
}

impl Files {
    /// Asks the server, and looks whether that can be so.
    ///
    /// # Errors
    /// If it runs elsewhere, or names a directory that is not its own.
    pub async fn of(server: &Server<'_>) -> Result<Self> {
        ensure!(server.is_local(), "it is on another machine");
        let process = server.process()?;
        let directory = PathBuf::from(
            server
                .setting("dir")
                .await
                .context("it does not tell its directory: CONFIG GET is forbidden")?,
        );
        let name = OsString::from(
            server
                .setting("dbfilename")
                .await
                .context("it does not tell its file's name: CONFIG GET is forbidden")?,
        );
        plain(&name)?;
        let files = Self { process, directory, name };
        files.process.account.act(|| files.own().map(drop))?;
        Ok(files)
    }

    /// Its directory, which must be its own: it may write there itself, and nobody is helped by
    /// what we do.
    fn own(&self) -> Result<Directory> {
        own(&self.directory, self.process.account)
    }

    /// Opens its file. None if there is none yet.
    pub fn open(&self) -> Result<Option<File>> {
        self.process.account.act(|| {
            let directory = self.own()?;
            match directory.look(Path::new(&self.name))? {
                Some(_) => directory.file(Path::new(&self.name)).map(Some),
                None => Ok(None),
            }
        })
    }

    /// For messages.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// The directory that `account` says is its own, opened with its rights.
///
/// # Errors
/// If it belongs to somebody else.
pub fn own(directory: &Path, account: Account) -> Result<Directory> {
    let open = Directory::open(directory)?;
    let owner = open.stat()?.st_uid;
    ensure!(
        owner == account.uid,
        "it says that its files are in {}, which belongs to user {owner} and not to the server's user {}: correct 'dir' in its configuration, or \
         the owner of that directory",
        directory.display(),
        account.uid
    );
    Ok(open)
}

/// Checks that files can be put in place in it.
///
/// # Errors
/// If its file system, or the sandbox of this process, forbids it.
pub fn writable(directory: &Path) -> Result<()> {
    let system = rustix::fs::statvfs(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        !system.f_flag.contains(StatVfsMountFlags::RDONLY),
        "{} is read-only for the units of a restore: ReadWritePaths={0} in a drop-in of gitlab-backup-restore-switch.service and the other \
         gitlab-backup-restore-*.service opens it",
        directory.display()
    );
    Ok(())
}

/// A file's name, and no way to elsewhere.
pub fn plain(name: &OsString) -> Result<()> {
    ensure!(
        beneath::is_name(name),
        "it says that its file is called '{}', which is no name",
        name.display()
    );
    Ok(())
}
