//! Where the files of a run are staged: one directory on each mounted file system, so that everything
//! in it can be renamed into its place.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::host::beneath::{self, Directory};
use crate::host::{mounts, remedy};
use crate::runs::restore::{Layout, Places, Root};
use crate::stores::moves;
use crate::values::RunId;

/// One layout for each mounted file system that has one of `paths`.
///
/// # Errors
/// If one of them cannot be replaced by a rename.
pub(super) fn layouts(paths: &[PathBuf], run: &RunId) -> Result<Vec<Layout>> {
    let mounts: Vec<PathBuf> = mounts::seen()?.into_iter().map(|mount| mount.target).collect();
    let mut layouts: BTreeMap<(u64, PathBuf), Layout> = BTreeMap::new();
    for path in paths {
        let site = Site::of(path, &mounts)?;
        match layouts.entry((site.device, site.mount)) {
            Entry::Occupied(mut layout) => layout.get_mut().roots.push(site.root),
            Entry::Vacant(vacant) => {
                let base = site.base;
                let kept = unused(base.join(format!("gitlab-backup-not-in-{run}")))?;
                let (places, roots) = (Places::planned(&base)?, vec![site.root]);
                vacant.insert(Layout { places, kept, roots });
            }
        }
    }
    Ok(layouts.into_values().collect())
}

/// Where one path of the run belongs on this host.
struct Site {
    root: Root,
    /// The number of its file system.
    device: u64,
    /// The mount that it is in. Not even within one file system does rename(2) go from one mount
    /// to another.
    mount: PathBuf,
    /// The directory for what is staged and for what is put aside.
    base: PathBuf,
}

impl Site {
    fn of(path: &Path, mounts: &[PathBuf]) -> Result<Self> {
        let here = replaceable(path)?;
        let parent = existing_above(path)?;
        let opened = Directory::open(&parent)?;
        let above = rustix::fs::fstat(&opened)
            .with_context(|| format!("cannot read {}", parent.display()))?;
        // Mounts are listed by their real paths: root's own links may lead to the parent.
        let real_parent = opened.real()?;
        let real = real_parent.join(path.strip_prefix(&parent)?);
        if let Some(inside) =
            mounts.iter().find(|mount| mount.starts_with(&real) && **mount != real)
        {
            bail!(
                "{} is a file system of its own inside {}: restore with --into and move its content by hand",
                inside.display(),
                path.display()
            );
        }
        let is_mount = here.as_ref().is_some_and(|here| {
            here.is_dir() && (here.dev() != above.st_dev || mounts.contains(&real))
        });
        let (base, device) = match (&here, is_mount) {
            (Some(here), true) => (real, here.dev()),
            _ => (real_parent, above.st_dev),
        };
        let mount = mounts
            .iter()
            .filter(|mount| base.starts_with(mount))
            .max_by_key(|mount| mount.as_os_str().len());
        let mount = mount.cloned().unwrap_or_else(|| PathBuf::from("/"));
        let base = closed(&base, &mount);
        ensure_writable(&base, path)?;
        Ok(Self { root: Root { path: path.to_owned(), mount: is_mount }, device, mount, base })
    }
}

/// What is at `path` now.
///
/// # Errors
/// If that cannot be renamed.
fn replaceable(path: &Path) -> Result<Option<fs::Metadata>> {
    let here = path.symlink_metadata().ok();
    ensure!(
        !here.as_ref().is_some_and(fs::Metadata::is_symlink),
        "{} is a symbolic link on this host: remove it, or restore with --into",
        path.display()
    );
    let fixed = here.is_some() && immutable(path)?;
    ensure!(
        !fixed,
        "{} may not be renamed, not even by root: 'chattr -i -a' first",
        path.display()
    );
    Ok(here)
}

/// Fails if the units of a restore see `base`, where `path` is to come, read-only.
fn ensure_writable(base: &Path, path: &Path) -> Result<()> {
    let system =
        rustix::fs::statvfs(base).with_context(|| format!("cannot look at {}", base.display()))?;
    ensure!(
        !system.f_flag.contains(StatVfsMountFlags::RDONLY),
        "{} is read-only for the units of a restore, and {} is to come there: name that path in [files] paths, and '{}'",
        base.display(),
        path.display(),
        remedy::install()
    );
    Ok(())
}

/// The nearest directory at or above `base`, within the mount, in which nobody but root can rename;
/// `base` where there is none.
fn closed(base: &Path, mount: &Path) -> PathBuf {
    let above = base.ancestors().take_while(|above| above.starts_with(mount));
    above.into_iter().find(|above| beneath::trusted(above).is_ok()).unwrap_or(base).to_owned()
}

/// `path`, or the first numbered one that does not exist: an earlier restore of the same run may have
/// kept something too.
fn unused(path: PathBuf) -> Result<PathBuf> {
    let numbered = (2..).map(|number| PathBuf::from(format!("{}-{number}", path.display())));
    for path in std::iter::once(path.clone()).chain(numbered) {
        if !moves::is_there(&path)? {
            return Ok(path);
        }
    }
    Ok(path)
}

/// The deepest directory above `path` that exists.
fn existing_above(path: &Path) -> Result<PathBuf> {
    let above = path.ancestors().skip(1).find(|path| path.is_dir());
    above
        .map(Path::to_owned)
        .with_context(|| format!("nothing above {} is a directory", path.display()))
}

/// statx(2): whether it has the attribute immutable or append-only, chattr(1).
fn immutable(path: &Path) -> Result<bool> {
    let found =
        rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let found = found.with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
}
