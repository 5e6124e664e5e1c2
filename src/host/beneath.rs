//! The one module through which root touches directories of others.
//!
//! Whoever owns a directory can put something else under any name in it, at any moment: a link to
//! another's file, a pipe that never ends, a directory that he moves while we are in it. So
//! directories are held by descriptor, names are looked up beneath them and never through a link,
//! what is opened is looked at before it is read, and nothing is made under a name that is there
//! already.
//!
//! A link is followed in one case only: nobody but root could have made it ([`Directory::open`]).

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

pub use held::Held;
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
    /// Opens a directory by its absolute path. A link on the way is followed only where nobody but
    /// root could have made it.
    ///
    /// # Errors If it is not there, is no directory, or is reached through a link that somebody
    /// else could have made.
    pub fn open(path: &Path) -> Result<Self> {
        let fd =
            open::directory(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The directory in which `path` is, and its name there.
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

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, by no link: what the kernel says of this very directory.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn real(&self) -> Result<PathBuf> {
        super::own::link(&self.reachable())
            .with_context(|| format!("cannot tell where {} is", self.path.display()))
    }

    /// Another handle of the same directory.
    pub fn again(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .with_context(|| format!("cannot open {} again", self.path.display()))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// A path to it for a program that this process starts: that leads to this directory, whatever
    /// has become of its name.
    pub fn reachable(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// What it is.
    pub fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd)
            .with_context(|| format!("cannot look at {}", self.path.display()))
    }

    /// What `relative` is; none if there is nothing. A link is itself.
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

    /// A directory beneath this one.
    pub fn below(&self, relative: &Path) -> Result<Self> {
        if relative.as_os_str().is_empty() {
            return self.again();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open::openat(&self.fd, relative, flags)
            .with_context(|| format!("cannot open {}", self.named(relative)))?;
        Ok(Self { fd, path: self.path.join(relative) })
    }

    /// Makes a directory, for this process's user alone if `mode` says so whatever the umask.
    ///
    /// # Errors
    /// If there is anything under this name already.
    pub fn make(&self, name: &OsStr, mode: u32) -> Result<Self> {
        let made = || -> Result<Self> {
            rustix::fs::mkdirat(&self.fd, one(name)?, Mode::RWXU)?;
            let new = self.below(Path::new(name))?;
            // Between the two the owner of this directory may have put another in its place.
            let stat = new.stat()?;
            ensure!(
                stat.st_uid == rustix::process::geteuid().as_raw() && new.entries()?.is_empty(),
                "it was exchanged as it was made"
            );
            // What the directory above has its owner's new ones inherit. Where there is none, or no
            // such thing, nothing is to be removed.
            for list in ["system.posix_acl_default", "system.posix_acl_access"] {
                let _ = rustix::fs::fremovexattr(&new.fd, list);
            }
            rustix::fs::fchmod(&new.fd, Mode::from_raw_mode(mode))?;
            Ok(new)
        };
        made().with_context(|| format!("cannot make {}", self.named(Path::new(name))))
    }

    /// The directory beneath this one at `relative`, made where it is missing; each new one is
    /// given what the directory of the same depth in `like` has, or else is closed.
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

    /// A regular file, for reading. Anything else under this name is an error, and is not waited
    /// for.
    pub fn file(&self, relative: &Path) -> Result<File> {
        self.regular(relative).with_context(|| format!("cannot read {}", self.named(relative)))
    }

    fn regular(&self, relative: &Path) -> Result<File> {
        regular(&self.fd, relative)
    }

    /// The content of a regular file that has at most `limit` bytes.
    pub fn read(&self, relative: &Path, limit: u64) -> Result<Vec<u8>> {
        let read = self.regular(relative).and_then(|file| bounded(file, limit));
        read.with_context(|| format!("cannot read {}", self.named(relative)))
    }

    /// Where a link leads to, as text.
    pub fn target(&self, name: &OsStr) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new());
        Ok(target
            .with_context(|| format!("cannot read {}", self.named(Path::new(name))))?
            .into_bytes())
    }

    /// Makes a file, for writing.
    ///
    /// # Errors
    /// If there is anything under this name already.
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

    /// Makes a file that is written to at its end, and can be read.
    ///
    /// # Errors
    /// If there is anything under this name already.
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

    /// The directory at `path`, an absolute one, or the nearest above it that is there, and the way
    /// from it.
    pub fn nearest(path: &Path) -> Result<(Self, &Path)> {
        for above in path.ancestors() {
            match Self::open(above) {
                Err(error) if is_missing(&error) => {}
                found => return Ok((found?, path.strip_prefix(above).unwrap_or(Path::new("")))),
            }
        }
        bail!("nothing above {} is there", path.display())
    }

    /// The directory at `path`, an absolute one, which is made for everybody to look into, with
    /// what is missing above it.
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

    /// Moves `name` to `to`, as `new`.
    ///
    /// # Errors
    /// If there is anything under the new name already.
    pub fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> Result<()> {
        let moved =
            match rustix::fs::renameat_with(&self.fd, name, &to.fd, new, RenameFlags::NOREPLACE) {
                // A file system that cannot promise it: then the look before is what there is.
                Err(Errno::INVAL | Errno::NOSYS) if to.look(Path::new(new))?.is_none() => {
                    rustix::fs::renameat(&self.fd, name, &to.fd, new)
                }
                moved => moved,
            };
        moved.with_context(|| {
            format!("cannot rename {} to {}", self.named(Path::new(name)), to.named(Path::new(new)))
        })
    }

    /// Exchanges `name` and what is in `to` as `other`.
    ///
    /// # Errors If one of them is not there ([`is_missing`]), or if the file system cannot do it
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

    /// Removes `name`, with all below it at any depth; nothing there is no failure.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        remove::remove(self, name)
            .with_context(|| format!("cannot remove {}", self.named(Path::new(name))))
    }

    /// Removes `name` if it is an empty directory, or one that has only such in it. Nothing there
    /// is no failure.
    pub fn remove_empty(&self, name: &OsStr) -> Result<()> {
        remove::remove_empty(self, name).with_context(|| {
            format!("cannot remove {}: it should hold nothing", self.named(Path::new(name)))
        })
    }

    /// The names in it, sorted, and what kind each was.
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

    /// Gives it and all below it to an account.
    ///
    /// # Errors If there is anything but directories and regular files with one name: what a link
    /// leads to, or has another name elsewhere, is not ours to give.
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
            // The content first: once it is the other's, he can exchange what is in it.
            rustix::fs::fchown(&directory.fd, user, group)
                .with_context(|| format!("cannot hand {} over", directory.path.display()))?;
        }
        Ok(())
    }

    /// Lets the group `gid` read all that is in it, which nobody else could enter so far, and
    /// nothing more: it stays ours. Returns its bytes.
    ///
    /// # Errors
    /// If there is anything but directories and regular files in it.
    pub fn lend(&self, gid: Option<u32>) -> Result<u64> {
        lend::lend(self, gid)
    }

    /// Sets its mode.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", self.path.display()))
    }

    /// Gives it the owner, mode and attributes of `like`.
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

/// The names of a file's extended attributes; none on a file system that has none.
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

/// A name, and not a path.
fn one(name: &OsStr) -> Result<&OsStr> {
    ensure!(Path::new(name).file_name() == Some(name), "'{}' is no name", name.display());
    Ok(name)
}

/// The content of a small regular file, in a directory that others may own.
///
/// # Errors
/// If it is not there, is anything else, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let read = || {
        let (parent, name) = path.parent().zip(path.file_name()).context("it has no name")?;
        let parent =
            open::place(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        bounded(regular(&parent, Path::new(name))?, limit)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// The same as text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The socket at `path`, to be connected to by its descriptor: through no link that others could
/// have made.
///
/// # Errors
/// If there is none.
pub fn socket(path: &Path) -> Result<OwnedFd> {
    open::socket(path).with_context(|| format!("cannot look at {}", path.display()))
}

/// Whether `name` is one of something in a directory, and no way to elsewhere.
pub fn is_name(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(name)
}

/// Whether an error says that there is nothing.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Errno::NOENT)
}

/// Whether an error says that there is something where nothing was to be.
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
