//! Access to directories of other users. Root uses no other module for that.
//!
//! The owner of a directory can replace any entry at any moment: by a link to another user's file,
//! by a pipe that blocks, or by another directory. So directories are held by descriptor, and names
//! are looked up beneath the descriptor and never through a link. The type of an opened file is
//! checked before it is read, and nothing is created under an existing name.
//!
//! A link is followed only if nobody except root could have created it ([`Directory::open`]).

mod held;
mod lend;
mod open;
mod remove;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use crate::host::durable::{self, Existing, Lifetime};

pub use held::KnownDirectory;
pub use lend::word;
pub use open::{openat, trusted};

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Directory> for OwnedFd {
    fn from(directory: Directory) -> Self {
        directory.fd
    }
}

impl Directory {
    /// Opens a directory by its absolute path. Follows a link on the path only if nobody except
    /// root could have created it.
    ///
    /// # Errors
    /// If it does not exist, is not a directory, or is reached through another link.
    pub fn open(path: &Path) -> Result<Self> {
        let fd =
            open::directory(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens the directory that contains `path`. Also returns the name of `path` there.
    ///
    /// # Errors
    /// As [`Directory::open`], and if `path` has no name.
    pub fn of(path: &Path) -> Result<(Self, OsString)> {
        let (parent, name) = path
            .parent()
            .zip(path.file_name())
            .with_context(|| format!("{} has no name", path.display()))?;
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of this directory without links, from the kernel.
    ///
    /// # Errors
    /// If the kernel does not provide it.
    pub fn real(&self) -> Result<PathBuf> {
        super::own::link(&self.reachable())
            .with_context(|| format!("cannot tell where {} is", self.path.display()))
    }

    /// Duplicates the descriptor.
    pub fn again(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .with_context(|| format!("cannot open {} again", self.path.display()))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// A path for child processes, which leads to this directory even if its name changes.
    pub fn reachable(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// The metadata of the directory.
    pub fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd)
            .with_context(|| format!("cannot look at {}", self.path.display()))
    }

    /// The metadata of `relative`, also if it is a link; none if it does not exist.
    pub fn look(&self, relative: &Path) -> Result<Option<Stat>> {
        let found = (|| {
            let (parent, name) = match (relative.parent(), relative.file_name()) {
                (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (None, name),
                (Some(parent), Some(name)) => {
                    (Some(open::openat(&self.fd, parent, OFlags::PATH | OFlags::DIRECTORY)?), name)
                }
                _ => return Err(Errno::INVAL),
            };
            rustix::fs::statat(
                parent.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd),
                name,
                AtFlags::SYMLINK_NOFOLLOW,
            )
        })();
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot look at {}", self.named(relative)))
            }
        }
    }

    /// Opens a directory beneath this one.
    pub fn below(&self, relative: &Path) -> Result<Self> {
        if relative.as_os_str().is_empty() {
            return self.again();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open::openat(&self.fd, relative, flags)
            .with_context(|| format!("cannot open {}", self.named(relative)))?;
        Ok(Self { fd, path: self.path.join(relative) })
    }

    /// Creates a directory with this mode, regardless of the umask and of inherited ACLs.
    ///
    /// # Errors
    /// If the name exists already.
    pub fn make(&self, name: &OsStr, mode: u32) -> Result<Self> {
        let made = || -> Result<Self> {
            rustix::fs::mkdirat(&self.fd, one(name)?, Mode::RWXU)?;
            let new = self.below(Path::new(name))?;
            // The owner of this directory may have exchanged it before it was opened.
            let stat = new.stat()?;
            ensure!(
                stat.st_uid == rustix::process::geteuid().as_raw() && new.entries()?.is_empty(),
                "it was exchanged as it was made"
            );
            // Remove inherited ACLs. An error means that there is none.
            for list in ["system.posix_acl_default", "system.posix_acl_access"] {
                let _ = rustix::fs::fremovexattr(&new.fd, list);
            }
            rustix::fs::fchmod(&new.fd, Mode::from_raw_mode(mode))?;
            Ok(new)
        };
        made().with_context(|| format!("cannot make {}", self.named(Path::new(name))))
    }

    /// Opens the directory at `relative`, and creates missing directories: with owner, mode and
    /// attributes of the directory with the same path beneath `like`, or else with mode 0700.
    pub fn make_all(&self, relative: &Path, like: Option<&Self>) -> Result<Self> {
        let mut here = self.again()?;
        let mut like = like.map(Self::again).transpose()?;
        for component in relative.components() {
            let Component::Normal(name) = component else {
                bail!("{} is no path beneath {}", relative.display(), self.path.display())
            };
            like = like.and_then(|like| like.below(Path::new(name)).ok());
            here = match here.look(Path::new(name))? {
                Some(_) => here.below(Path::new(name))?,
                None => {
                    let new = here.make(name, 0o700)?;
                    if let Some(like) = &like {
                        new.adopt(like)?;
                    }
                    new
                }
            };
        }
        Ok(here)
    }

    /// Opens a regular file for reading. Fails for any other type, without blocking.
    pub fn file(&self, relative: &Path) -> Result<File> {
        self.regular(relative).with_context(|| format!("cannot read {}", self.named(relative)))
    }

    fn regular(&self, relative: &Path) -> Result<File> {
        regular(&self.fd, relative)
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read(&self, relative: &Path, limit: u64) -> Result<Vec<u8>> {
        let read = self.regular(relative).and_then(|file| bounded(file, limit));
        read.with_context(|| format!("cannot read {}", self.named(relative)))
    }

    /// The target of a link.
    pub fn target(&self, name: &OsStr) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new());
        Ok(target
            .with_context(|| format!("cannot read {}", self.named(Path::new(name))))?
            .into_bytes())
    }

    /// Creates a file for writing.
    ///
    /// # Errors
    /// If the name exists already.
    pub fn create(&self, name: &OsStr, mode: u32) -> Result<File> {
        let create = || -> Result<File> {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&self.fd, one(name)?, flags, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
            Ok(File::from(fd))
        };
        create().with_context(|| format!("cannot make {}", self.named(Path::new(name))))
    }

    /// Creates a file for reading and appending.
    ///
    /// # Errors
    /// If the name exists already.
    pub fn log(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let made = one(name).and_then(|name| {
            Ok(rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?)
        });
        made.map(File::from).with_context(|| format!("cannot make {}", self.named(Path::new(name))))
    }

    /// Opens the directory at the absolute `path`, or its nearest existing parent. Also returns the
    /// rest of the path.
    pub fn nearest(path: &Path) -> Result<(Self, &Path)> {
        for above in path.ancestors() {
            match Self::open(above) {
                Err(error) if is_missing(&error) => {}
                found => return Ok((found?, path.strip_prefix(above).unwrap_or(Path::new("")))),
            }
        }
        bail!("nothing above {} is there", path.display())
    }

    /// Opens the directory at the absolute `path`, and creates it and missing parents with mode
    /// 0755.
    pub fn made(path: &Path) -> Result<Self> {
        let (found, missing) = Self::nearest(path)?;
        missing.iter().try_fold(found, |here, name| here.make(name, 0o755))
    }

    /// Writes the file `name`, which it replaces, as [`durable`] says.
    pub fn replace(&self, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
        self.put(name, content, mode, Existing::Replace)
    }

    /// Writes the new file `name`, as [`durable`] says.
    ///
    /// # Errors
    /// If there is anything under this name already.
    pub fn write_new(&self, name: &OsStr, content: &[u8], mode: u32) -> Result<()> {
        self.put(name, content, mode, Existing::Keep)
    }

    fn put(&self, name: &OsStr, content: &[u8], mode: u32, existing: Existing) -> Result<()> {
        let put = || {
            durable::write_in(self, one(name)?, mode, Lifetime::Disk, existing, |file| {
                Ok(file.write_all(content)?)
            })
        };
        put().with_context(|| format!("cannot write {}", self.named(Path::new(name))))
    }

    /// Moves `name` to directory `to`, as `new`.
    ///
    /// # Errors
    /// If the new name exists already.
    pub fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> Result<()> {
        let moved =
            match rustix::fs::renameat_with(&self.fd, name, &to.fd, new, RenameFlags::NOREPLACE) {
                // The file system does not support the flag: check before the rename.
                Err(Errno::INVAL | Errno::NOSYS) if to.look(Path::new(new))?.is_none() => {
                    rustix::fs::renameat(&self.fd, name, &to.fd, new)
                }
                moved => moved,
            };
        moved.with_context(|| {
            format!("cannot rename {} to {}", self.named(Path::new(name)), to.named(Path::new(new)))
        })
    }

    /// Exchanges `name` with `other` in directory `to`.
    ///
    /// # Errors
    /// If one of them does not exist ([`is_missing`]), or if the file system does not support it
    /// ([`is_in_the_way`]).
    pub fn exchange(&self, name: &OsStr, to: &Self, other: &OsStr) -> Result<()> {
        let done =
            match rustix::fs::renameat_with(&self.fd, name, &to.fd, other, RenameFlags::EXCHANGE) {
                Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST),
                done => done,
            };
        done.with_context(|| {
            format!(
                "cannot exchange {} and {}",
                self.named(Path::new(name)),
                to.named(Path::new(other))
            )
        })
    }

    /// Removes `name` recursively, if it exists.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        remove::remove(self, name)
            .with_context(|| format!("cannot remove {}", self.named(Path::new(name))))
    }

    /// Removes `name`, if it exists, and the directories below it. Fails if there is anything else.
    pub fn remove_empty(&self, name: &OsStr) -> Result<()> {
        remove::remove_empty(self, name).with_context(|| {
            format!("cannot remove {}: it should hold nothing", self.named(Path::new(name)))
        })
    }

    /// The names of its entries, sorted, and their types.
    pub fn entries(&self) -> Result<Vec<(OsString, FileType)>> {
        self.list().with_context(|| format!("cannot read {}", self.path.display()))
    }

    fn list(&self) -> io::Result<Vec<(OsString, FileType)>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => FileType::from_raw_mode(
                    rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
                ),
                kind => kind,
            };
            entries.push((name.to_owned(), kind));
        }
        entries.sort_unstable_by(|one: &(OsString, _), other| one.0.cmp(&other.0));
        Ok(entries)
    }

    /// Changes the owner of the directory and everything below it.
    ///
    /// # Errors
    /// If there is anything except directories and regular files with one name: the target of a
    /// link, or a file with another name elsewhere, may belong to another user.
    pub fn give(&self, uid: u32, gid: u32) -> Result<()> {
        let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let mut pending = vec![self.again()?];
        while let Some(directory) = pending.pop() {
            for (name, _) in directory.entries()? {
                let path = Path::new(&name);
                let give = || -> Result<Option<Self>> {
                    let fd = open::openat(
                        &directory.fd,
                        path,
                        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
                    )?;
                    let stat = rustix::fs::fstat(&fd)?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory => {
                            Ok(Some(Self { fd, path: directory.path.join(path) }))
                        }
                        FileType::RegularFile if stat.st_nlink == 1 => {
                            rustix::fs::fchown(&fd, user, group)?;
                            Ok(None)
                        }
                        _ => bail!("it is neither a directory nor a file with one name"),
                    }
                };
                pending.extend(
                    give()
                        .with_context(|| format!("cannot hand {} over", directory.named(path)))?,
                );
            }
            // After its entries: then the new owner can exchange them.
            rustix::fs::fchown(&directory.fd, user, group)
                .with_context(|| format!("cannot hand {} over", directory.path.display()))?;
        }
        Ok(())
    }

    /// Lets the group `gid` read everything in a directory that was closed so far. The owner does
    /// not change. Returns the size in bytes.
    ///
    /// # Errors
    /// If there is anything except directories and regular files.
    pub fn lend(&self, gid: Option<u32>) -> Result<u64> {
        lend::lend(self, gid)
    }

    /// Sets its mode.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", self.path.display()))
    }

    /// Copies owner, mode and extended attributes of `like`.
    pub fn adopt(&self, like: &Self) -> Result<()> {
        let adopt = || -> Result<()> {
            let stat = like.stat()?;
            rustix::fs::fchown(
                &self.fd,
                Some(Uid::from_raw(stat.st_uid)),
                Some(Gid::from_raw(stat.st_gid)),
            )?;
            rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(stat.st_mode))?;
            for name in attributes(&like.fd)? {
                let mut value = vec![0_u8; rustix::fs::fgetxattr(&like.fd, &name, &mut [0_u8; 0])?];
                let length = rustix::fs::fgetxattr(&like.fd, &name, &mut value[..])?;
                rustix::fs::fsetxattr(
                    &self.fd,
                    &name,
                    &value[..length],
                    rustix::fs::XattrFlags::empty(),
                )?;
            }
            Ok(())
        };
        adopt().with_context(|| {
            format!("cannot give {} what {} has", self.path.display(), like.path.display())
        })
    }

    fn named(&self, relative: &Path) -> String {
        self.path.join(relative).display().to_string()
    }
}

/// The names of a file's extended attributes; none if the file system does not support them.
fn attributes(fd: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let length = match rustix::fs::flistxattr(fd, &mut [0_u8; 0]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        length => length?,
    };
    let mut names = vec![0_u8; length];
    let length = rustix::fs::flistxattr(fd, &mut names[..])?;
    names.truncate(length);
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Checks that `name` is a name and not a path.
fn one(name: &OsStr) -> Result<&OsStr> {
    ensure!(Path::new(name).file_name() == Some(name), "'{}' is no name", name.display());
    Ok(name)
}

/// Reads a regular file, in a directory that may belong to another user.
///
/// # Errors
/// If it does not exist, is not a regular file, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || {
        let (parent, name) = path.parent().zip(path.file_name()).context("it has no name")?;
        let parent =
            open::place(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        bounded(regular(&parent, Path::new(name))?, limit)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a regular file as text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Opens the socket at `path`, through no link that other users could have created.
///
/// # Errors
/// If it does not exist.
pub fn socket(path: &Path) -> Result<OwnedFd> {
    open::socket(path).with_context(|| format!("cannot look at {}", path.display()))
}

/// Whether `name` is the name of a directory entry, and not a path.
pub fn is_name(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(name)
}

/// Whether an error means that the file does not exist.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Errno::NOENT)
}

/// Whether an error means that the name exists already.
pub fn is_in_the_way(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Errno::EXIST)
}

fn regular(directory: &OwnedFd, relative: &Path) -> Result<File> {
    let fd = open::openat(directory, relative, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    ensure!(kind == FileType::RegularFile, "it is not a regular file");
    Ok(File::from(fd))
}

fn bounded(file: File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= limit, "it has more than {limit} bytes");
    Ok(bytes)
}

#[cfg(test)]
mod tests;
