//! Opening: beneath a directory without links, and by an absolute path through those links alone
//! that are root's.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Links on one way, as the kernel allows, path_resolution(7).
const LINKS: usize = 40;
/// The sticky bit: in such a directory only a file's owner can put another in its place.
const STICKY: u32 = 0o1000;
/// The group and all others may write.
const OTHERS: u32 = 0o022;

/// Opens `path` beneath `directory`, through no link at all, whoever made it. The last name may not
/// be a link either.
pub fn openat(directory: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    /// Before Linux 5.6, and where a system call filter does not know it.
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
            // EPERM: a system call filter, or what a step by itself will say again. EAGAIN: a
            // rename beside it.
            Err(Errno::PERM | Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    by_steps(directory.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?, path, flags)
}

/// Whether a path leads nowhere but down.
fn goes_down(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// The same, a name at a time.
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

/// A directory by its absolute path, as a place to begin at: it need not be readable.
pub(super) fn place(path: &Path) -> Result<OwnedFd> {
    let found = walk(path)?;
    ensure!(kind(&found.stat) == FileType::Directory, "it is not a directory");
    Ok(found.fd)
}

/// A socket by its absolute path.
pub(super) fn socket(path: &Path) -> Result<OwnedFd> {
    let found = walk(path)?;
    ensure!(kind(&found.stat) == FileType::Socket, "it is not a socket");
    Ok(found.fd)
}

/// A directory by its absolute path.
pub(super) fn directory(path: &Path) -> Result<OwnedFd> {
    let found = place(path)?;
    Ok(rustix::fs::openat(
        &found,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Checks that nobody but root (or this process's own user) can change what is at `path`, or put
/// something else there.
///
/// # Errors
/// With the place that somebody else can change, and what to do about it.
pub fn trusted(path: &Path) -> Result<()> {
    let found = walk(path).with_context(|| format!("cannot look at {}", path.display()))?;
    match found.foreign {
        None => Ok(()),
        Some(place) => bail!(
            "others can change {}, and so what is read from {}: it must be root's, and not writable by its group or others (chown root, chmod go-w)",
            place.display(),
            path.display()
        ),
    }
}

/// A place on the way.
struct Step {
    fd: OwnedFd,
    stat: Stat,
    /// The first place on the way that others can change.
    foreign: Option<PathBuf>,
}

fn root() -> Result<Step> {
    let fd = rustix::fs::openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Step { fd, stat, foreign: None })
}

/// Walks to `path`, a name at a time.
fn walk(path: &Path) -> Result<Step> {
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
                "{} is a link that others than root could have made, and is not followed: name what it leads to",
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
        above.push(std::mem::replace(&mut here, Step { fd, stat, foreign }));
    }
    Ok(here)
}

/// The names of `path`, the first last.
fn push(names: &mut Vec<OsString>, path: &Path) {
    names.extend(
        path.components()
            .rev()
            .filter(|component| *component != Component::CurDir)
            .map(|part| part.as_os_str().to_owned()),
    );
}

/// Whether others could put something else in the place of `inner`, which is in `directory`.
fn exchangeable(directory: &Stat, inner: &Stat) -> bool {
    let mode = directory.st_mode;
    !ours(directory) || (mode & OTHERS != 0 && !(mode & STICKY != 0 && ours(inner)))
}

/// Root's, or this process's own.
fn ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
