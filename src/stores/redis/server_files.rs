//! The files of a Redis server on this host. The server says where they are and may lie, so they
//! are opened with the server's own rights only.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::StatVfsMountFlags;

use crate::host::beneath::{self, Directory};
use crate::host::identity::Account;

use super::connection::Connection;
use super::process::ServerProcess;

/// The place of the RDB file of a server on this host.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// The server's process.
    pub process: ServerProcess,
    /// Its working directory.
    pub directory: PathBuf,
    /// The name of its RDB file in that directory.
    pub name: OsString,
}

impl ServerFiles {
    /// Asks the server for its directory and file name, and checks that the directory belongs to
    /// the server's account.
    ///
    /// # Errors
    /// If the server is on another host, or names a directory of another account.
    pub async fn find(server: &Connection<'_>) -> Result<Self> {
        ensure!(server.is_local(), "it is on another machine");
        let process = server.process()?;
        let directory = PathBuf::from(
            server
                .setting("dir")
                .await
                .context("its directory is unknown: CONFIG GET is forbidden")?,
        );
        let name = OsString::from(
            server
                .setting("dbfilename")
                .await
                .context("the name of its file is unknown: CONFIG GET is forbidden")?,
        );
        ensure_plain_name(&name)?;
        let files = Self { process, directory, name };
        files.process.account.act(|| files.open_directory().map(drop))?;
        Ok(files)
    }

    fn open_directory(&self) -> Result<Directory> {
        open_own_directory(&self.directory, self.process.account)
    }

    /// Opens the RDB file, as the server's account. `None` if the server has not written one yet.
    pub fn open(&self) -> Result<Option<File>> {
        self.process.account.act(|| {
            let directory = self.open_directory()?;
            match directory.look(Path::new(&self.name))? {
                Some(_) => directory.file(Path::new(&self.name)).map(Some),
                None => Ok(None),
            }
        })
    }

    /// The path of the RDB file, for messages.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// Opens a directory of which a server claims that it is its own. To be called with the server's
/// rights.
///
/// # Errors
/// If the directory does not belong to `account`. In its own directory the server could change the
/// files itself, so it gains nothing by a false claim.
pub fn open_own_directory(directory: &Path, account: Account) -> Result<Directory> {
    let open = Directory::open(directory)?;
    let owner = open.stat()?.st_uid;
    ensure!(
        owner == account.uid,
        "it says that its files are in {}, which belongs to user {owner} and not to the server's \
         user {}: correct 'dir' in its configuration, or the owner of that directory",
        directory.display(),
        account.uid
    );
    Ok(open)
}

/// Checks that files in `directory` can be replaced.
///
/// # Errors
/// If it is read-only: its file system, or in the sandbox of this unit.
pub fn ensure_writable(directory: &Path) -> Result<()> {
    let system = rustix::fs::statvfs(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        !system.f_flag.contains(StatVfsMountFlags::RDONLY),
        "{} is read-only for the units of a restore: add ReadWritePaths={0} in a drop-in for \
         gitlab-backup-restore-switch.service and the other gitlab-backup-restore-*.service",
        directory.display()
    );
    Ok(())
}

/// Fails if `name`, which a server reports, is not the name of a file in its directory.
pub fn ensure_plain_name(name: &OsString) -> Result<()> {
    ensure!(
        beneath::is_name(name),
        "it says that its file is called '{}', which is not a file name",
        name.display()
    );
    Ok(())
}
