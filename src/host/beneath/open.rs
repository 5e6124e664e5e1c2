//! Opens files: beneath a directory through no link, and by an absolute path through links of root
//! only.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The maximum number of links in one path, as in the kernel, path_resolution(7).
const LINKS: usize = 40;
/// The sticky bit: in such a directory, only the owner of a file can replace it.
const STICKY: u32 = 0o1000;
/// Write access for the group or all others.
const OTHERS: u32 = 0o022;

/// Opens `path` beneath `directory`, through no link. The last component must not be a link either.
pub fn openat(directory: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    /// Whether openat2(2) is missing: before Linux 5.6, or because of a system call filter.
    static WITHOUT: AtomicBool = AtomicBool::new(false);
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !goes_down(path) {
        return Err(Errno::XDEV);
    }
    if !WITHOUT.load(Ordering::Relaxed) {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => WITHOUT.store(true, Ordering::Relaxed),
            // EPERM: a system call filter; another reason will fail the steps below as well.
            // EAGAIN: a concurrent rename.
            Err(Errno::PERM | Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    by_steps(directory.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?, path, flags)
}

/// Whether a path has no `..` and is not absolute.
fn goes_down(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// The same without openat2(2), one component at a time.
pub(super) fn by_steps(
    mut here: OwnedFd,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    if !goes_down(path) {
        return Err(Errno::XDEV);
    }
    let mut names =
        path.components().filter(|component| *component != Component::CurDir).peekable();
    if names.peek().is_none() && !path.as_os_str().is_empty() {
        return rustix::fs::openat(&here, ".", flags, Mode::empty());
    }
    while let Some(component) = names.next() {
        let name = component.as_os_str();
        if names.peek().is_none() {
            return rustix::fs::openat(&here, name, flags, Mode::empty());
        }
        here = rustix::fs::openat(
            &here,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
    }
    Err(Errno::NOENT)
}

/// Opens a directory by its absolute path, as a start for further lookups. It need not be readable.
pub(super) fn place(path: &Path) -> Result<OwnedFd> {
    let found = walk(path)?;
    ensure!(kind(&found.stat) == FileType::Directory, "it is not a directory");
    Ok(found.fd)
}

/// Opens a socket by its absolute path.
pub(super) fn socket(path: &Path) -> Result<OwnedFd> {
    let found = walk(path)?;
    ensure!(kind(&found.stat) == FileType::Socket, "it is not a socket");
    Ok(found.fd)
}

/// Opens a directory by its absolute path, for reading.
pub(super) fn directory(path: &Path) -> Result<OwnedFd> {
    let found = place(path)?;
    Ok(rustix::fs::openat(
        &found,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Checks that nobody except root and the user of this process can change or replace `path`.
///
/// # Errors
/// With the path that another user can change, and the remedy.
pub fn trusted(path: &Path) -> Result<()> {
    let found = walk(path).with_context(|| format!("cannot look at {}", path.display()))?;
    match found.foreign {
        None => Ok(()),
        Some(place) => bail!(
            "others can change {}, and so what is read from {}: it must be root's, and not \
             writable by its group or others (chown root, chmod go-w)",
            place.display(),
            path.display()
        ),
    }
}

/// An opened component of a path.
struct PathStep {
    fd: OwnedFd,
    stat: Stat,
    /// The first component so far that other users can change.
    foreign: Option<PathBuf>,
}

fn root() -> Result<PathStep> {
    let fd = rustix::fs::openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok(PathStep { fd, stat, foreign: None })
}

/// Opens `path`, one component at a time.
fn walk(path: &Path) -> Result<PathStep> {
    let path = &std::path::absolute(path)?;
    let (mut here, mut above, mut shown) = (root()?, Vec::new(), PathBuf::from("/"));
    let mut names: Vec<OsString> = Vec::new();
    push(&mut names, path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == "/" {
            (here, shown) = (root()?, "/".into());
            above.clear();
            continue;
        }
        if name == ".." {
            here = above.pop().map_or_else(root, Ok)?;
            shown.pop();
            continue;
        }
        ensure!(kind(&here.stat) == FileType::Directory, "{} is not a directory", shown.display());
        let fd = rustix::fs::openat(
            &here.fd,
            &name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = rustix::fs::fstat(&fd)?;
        let exchangeable = here.foreign.is_some() || exchangeable(&here.stat, &stat);
        if kind(&stat) == FileType::Symlink {
            links += 1;
            ensure!(links <= LINKS, "it leads through more than {LINKS} links");
            ensure!(
                !exchangeable && ours(&stat),
                "{} is a link that others than root could have made, and is not followed: name \
                 what it leads to",
                shown.join(&name).display()
            );
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
            push(&mut names, Path::new(&OsString::from_vec(target.into_bytes())));
            continue;
        }
        shown.push(&name);
        let changeable = exchangeable
            || !ours(&stat)
            || (stat.st_mode & OTHERS != 0 && stat.st_mode & STICKY == 0);
        let foreign = here.foreign.clone().or_else(|| changeable.then(|| shown.clone()));
        above.push(std::mem::replace(&mut here, PathStep { fd, stat, foreign }));
    }
    Ok(here)
}

/// Appends the components of `path` in reverse order.
fn push(names: &mut Vec<OsString>, path: &Path) {
    names.extend(
        path.components()
            .rev()
            .filter(|component| *component != Component::CurDir)
            .map(|part| part.as_os_str().to_owned()),
    );
}

/// Whether other users could replace `inner`, an entry of `directory`.
fn exchangeable(directory: &Stat, inner: &Stat) -> bool {
    let mode = directory.st_mode;
    !ours(directory) || (mode & OTHERS != 0 && !(mode & STICKY != 0 && ours(inner)))
}

/// Whether a file belongs to root or to the user of this process.
fn ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
