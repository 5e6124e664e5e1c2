//! Plans where the files of a run are staged: in one directory on each mounted file system, because
//! rename(2) works within one mount only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::host::beneath::{self, Directory};
use crate::host::{mounts, remedy};
use crate::runs::restore::{Places, Root, StagingLayout};
use crate::stores::moves;
use crate::values::RunId;

/// Plans one layout for each mounted file system that holds some of `paths`.
///
/// # Errors
/// If a path cannot be replaced by a rename.
pub(super) fn plan_layouts(paths: &[PathBuf], run: &RunId) -> Result<Vec<StagingLayout>> {
    let mounts: Vec<PathBuf> = mounts::seen()?.into_iter().map(|mount| mount.target).collect();
    let mut layouts: BTreeMap<(u64, PathBuf), StagingLayout> = BTreeMap::new();
    for path in paths {
        let site = Site::find(path, &mounts)?;
        match layouts.entry((site.device, site.mount)) {
            Entry::Occupied(mut layout) => layout.get_mut().roots.push(site.root),
            Entry::Vacant(vacant) => {
                let base = site.base;
                let kept = unused_name(base.join(format!("gitlab-backup-not-in-{run}")))?;
                let (places, roots) = (Places::planned(&base)?, vec![site.root]);
                vacant.insert(StagingLayout { places, kept, roots });
            }
        }
    }
    Ok(layouts.into_values().collect())
}

/// The place of one path of the run on this host.
struct Site {
    root: Root,
    /// The device number of its file system.
    device: u64,
    /// Its mount point. A file system can have several mounts, and rename(2) does not work across
    /// them.
    mount: PathBuf,
    /// The directory in which the new files are staged and the old ones are put aside.
    base: PathBuf,
}

impl Site {
    /// Finds the place of `path` on this host.
    fn find(path: &Path, mounts: &[PathBuf]) -> Result<Self> {
        let here = replaceable_metadata(path)?;
        let parent = existing_above(path)?;
        let opened = Directory::open(&parent)?;
        let above = rustix::fs::fstat(&opened)
            .with_context(|| format!("cannot read {}", parent.display()))?;
        // Mounts are listed by their real paths, and links of root may lead to the parent.
        let real_parent = opened.real()?;
        let real = real_parent.join(path.strip_prefix(&parent)?);
        if let Some(inside) =
            mounts.iter().find(|mount| mount.starts_with(&real) && **mount != real)
        {
            bail!(
                "{} is a mount point inside {}: restore with --into and move its content by hand",
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
        let base = protected_ancestor(&base, &mount);
        ensure_writable(&base, path)?;
        Ok(Self { root: Root { path: path.to_owned(), mount: is_mount }, device, mount, base })
    }
}

/// The metadata of the file or directory at `path`, if there is one.
///
/// # Errors
/// If it cannot be replaced by a rename.
fn replaceable_metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    let here = path.symlink_metadata().ok();
    ensure!(
        !here.as_ref().is_some_and(fs::Metadata::is_symlink),
        "{} is a symbolic link on this host: remove it, or restore with --into",
        path.display()
    );
    let immutable = here.is_some() && is_immutable(path)?;
    ensure!(
        !immutable,
        "{} may not be renamed, not even by root: 'chattr -i -a' first",
        path.display()
    );
    Ok(here)
}

/// Fails if `base`, the staging place of `path`, is read-only for the units of a restore.
fn ensure_writable(base: &Path, path: &Path) -> Result<()> {
    let system =
        rustix::fs::statvfs(base).with_context(|| format!("cannot look at {}", base.display()))?;
    ensure!(
        !system.f_flag.contains(StatVfsMountFlags::RDONLY),
        "{} is read-only for the units of a restore, which cannot stage {} there: add that path \
         to [files] paths, and run '{}'",
        base.display(),
        path.display(),
        remedy::install()
    );
    Ok(())
}

/// The nearest directory at or above `base`, within the mount, in which only root can rename;
/// `base` if there is none.
fn protected_ancestor(base: &Path, mount: &Path) -> PathBuf {
    let above = base.ancestors().take_while(|above| above.starts_with(mount));
    above.into_iter().find(|above| beneath::trusted(above).is_ok()).unwrap_or(base).to_owned()
}

/// `path`, or the first of `path-2`, `path-3`, … that does not exist. An earlier restore of the
/// same run may have kept files under this name.
fn unused_name(path: PathBuf) -> Result<PathBuf> {
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
        .with_context(|| format!("no parent of {} is a directory", path.display()))
}

/// Whether `path` has the attribute immutable or append-only of chattr(1), by statx(2).
fn is_immutable(path: &Path) -> Result<bool> {
    let found =
        rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let found = found.with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
}
