//! ZFS: snapshots of datasets. Tested with a fake of zfs(8) only.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::{own, process};

use super::unmount::unmount;
use super::{Mount, VolumeKind, VolumePlace, VolumeSnapshot, Volumes, has_our_name};

/// Datasets.
#[derive(Default)]
pub(super) struct Zfs {
    /// Replaces zfs(8) and mount(8) in tests.
    fakes: Option<Fakes>,
}

/// Fake programs.
struct Fakes {
    /// The directory with the programs.
    programs: PathBuf,
    /// The directory in which they keep their state.
    state: PathBuf,
}

impl Zfs {
    fn command(&self, program: &str) -> Command {
        // Messages are parsed where the exit status is not specific enough.
        match &self.fakes {
            None => {
                let mut command = Command::new(program);
                command.env("LC_ALL", "C");
                command
            }
            Some(fakes) => {
                let mut command = Command::new(fakes.programs.join(program));
                command.env("FAKE_ZFS", &fakes.state);
                command
            }
        }
    }

    /// The names of this program's snapshots of `dataset`; empty if the dataset does not exist.
    fn snapshots_of(&self, dataset: &str) -> Result<Vec<String>> {
        let output = process::run(
            self.command("zfs")
                .args(["list", "-H", "-t", "snapshot", "-o", "name", "-d", "1", dataset]),
        );
        let names = match output {
            Err(error) if error.to_string().contains("dataset does not exist") => {
                return Ok(Vec::new());
            }
            names => names?,
        };
        let name = |line: &str| {
            line.strip_prefix(dataset)?
                .strip_prefix('@')
                .filter(|name| has_our_name(name))
                .map(str::to_owned)
        };
        Ok(names.lines().filter_map(name).collect())
    }
}

fn full(snapshot: &VolumeSnapshot) -> String {
    format!("{}@{}", snapshot.origin, snapshot.name)
}

impl Volumes for Zfs {
    fn locate(&self, mount: &Mount, path: &Path) -> Result<Result<VolumePlace, String>> {
        if mount.kind != "zfs" {
            return Ok(Err(format!("it is on {}", mount.kind)));
        }
        if mount.source.contains('@') {
            return Ok(Err(format!("{} is a snapshot itself", mount.source)));
        }
        let below = path.strip_prefix(&mount.target).context("the path is not below its mount")?;
        let inside = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(below);
        Ok(Ok(VolumePlace { origin: mount.source.clone(), inside }))
    }

    fn prepare(&self, _: &VolumeSnapshot) -> Result<()> {
        Ok(())
    }

    fn take(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        process::run(self.command("zfs").args(["snapshot", &full(snapshot)])).map(drop)
    }

    fn mount(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        own::make(&snapshot.at)?;
        // Not through .zfs/snapshot: the kernel mounts and unmounts there automatically, outside of
        // the unit's mount namespace, and the dataset may hide it.
        let arguments = ["-t", "zfs", "-o", "ro,nosuid,nodev,noexec", &full(snapshot)];
        process::run(self.command("mount").args(arguments.map(OsStr::new)).arg(&snapshot.at))
            .map(drop)
    }

    fn ensure_intact(&self, _: &VolumeSnapshot) -> Result<()> {
        // A full pool refuses new data and loses none.
        Ok(())
    }

    fn remove(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        // zfs(8) would also accept a list, a range, or a whole dataset.
        ensure!(
            has_our_name(&snapshot.name) && !snapshot.origin.contains('@'),
            "'{}' is not a snapshot of gitlab-backup",
            full(snapshot)
        );
        unmount(&snapshot.at)?;
        for mount in super::mounts()?
            .iter()
            .filter(|mount| mount.kind == "zfs" && mount.source == full(snapshot))
        {
            process::run(Command::new("umount").arg(&mount.target))?;
        }
        if self.snapshots_of(&snapshot.origin)?.contains(&snapshot.name) {
            process::run(self.command("zfs").args(["destroy", &full(snapshot)]))?;
        }
        Ok(())
    }

    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<VolumeSnapshot>> {
        let mut datasets: Vec<&str> = mounts
            .iter()
            .filter(|mount| mount.kind == "zfs")
            .map(|mount| mount.source.as_str())
            .collect();
        datasets.retain(|dataset| !dataset.contains('@'));
        datasets.sort_unstable();
        datasets.dedup();
        let mut found = Vec::new();
        for dataset in datasets {
            let snapshot = |name| VolumeSnapshot {
                kind: VolumeKind::Zfs,
                origin: dataset.to_owned(),
                name,
                at: PathBuf::new(),
            };
            found.extend(self.snapshots_of(dataset)?.into_iter().map(snapshot));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NAME: &str = "gitlab-backup-20261124T023000Z-8f3c-0";

    fn fake() -> (Zfs, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fake-zfs");
        (Zfs { fakes: Some(Fakes { programs, state: state.path().to_owned() }) }, state)
    }

    fn mount(source: &str) -> Mount {
        Mount {
            target: "/srv/git".into(),
            source: source.to_owned(),
            kind: "zfs".to_owned(),
            root: "/".into(),
        }
    }

    #[test]
    fn a_path_is_in_the_dataset_that_is_mounted_there() {
        let place = |mount: &Mount| {
            Zfs::default().locate(mount, Path::new("/srv/git/repositories")).unwrap()
        };
        assert_eq!(
            place(&mount("tank/git")),
            Ok(VolumePlace { origin: "tank/git".to_owned(), inside: "repositories".into() })
        );
        // A part of it, mounted with --bind.
        let part = Mount { root: "/data".into(), ..mount("tank/git") };
        assert_eq!(place(&part).unwrap().inside, Path::new("data/repositories"));
        assert!(place(&mount("tank/git@yesterday")).is_err());
        assert_eq!(
            place(&Mount { kind: "ext4".to_owned(), ..mount("/dev/sda1") }),
            Err("it is on ext4".to_owned())
        );
    }

    #[test]
    fn with_a_fake_a_snapshot_is_made_mounted_found_and_removed_and_no_other() {
        let (zfs, state) = fake();
        let at = state.path().join("at");
        let snapshot = VolumeSnapshot {
            kind: VolumeKind::Zfs,
            origin: "tank/git".to_owned(),
            name: NAME.to_owned(),
            at: at.clone(),
        };
        fs::write(
            state.path().join("snapshots"),
            "tank/git@hourly\ntank/git@gitlab-backup-manual\ntank/other@x\n",
        )
        .unwrap();
        zfs.remove(&snapshot).unwrap();
        zfs.take(&snapshot).unwrap();
        assert!(zfs.take(&snapshot).is_err());
        zfs.mount(&snapshot).unwrap();
        let left = zfs
            .leftovers(&[mount("tank/git"), mount("tank/git"), mount(&full(&snapshot))])
            .unwrap();
        assert_eq!(left, [VolumeSnapshot { at: PathBuf::new(), ..snapshot.clone() }]);
        zfs.remove(&snapshot).unwrap();
        zfs.remove(&snapshot).unwrap();
        assert_eq!(zfs.leftovers(&[mount("tank/git")]).unwrap(), []);
        let read = |name| fs::read_to_string(state.path().join(name)).unwrap();
        assert_eq!(
            read("snapshots"),
            "tank/git@hourly\ntank/git@gitlab-backup-manual\ntank/other@x\n"
        );
        let said = read("said");
        let changes: Vec<&str> =
            said.lines().filter(|line| !line.starts_with("zfs list ")).collect();
        let (snapshot, at) = (full(&snapshot), at.display());
        assert_eq!(
            changes,
            [
                format!("zfs snapshot {snapshot}"),
                format!("zfs snapshot {snapshot}"),
                format!("mount -t zfs -o ro,nosuid,nodev,noexec {snapshot} {at}"),
                format!("zfs destroy {snapshot}")
            ]
        );
    }

    #[test]
    fn what_is_gone_is_undone_and_what_is_not_ours_is_refused() {
        let (zfs, _state) = fake();
        let snapshot = |origin: &str, name: &str| VolumeSnapshot {
            kind: VolumeKind::Zfs,
            origin: origin.to_owned(),
            name: name.to_owned(),
            at: PathBuf::new(),
        };
        zfs.remove(&snapshot("tank/destroyed", NAME)).unwrap();
        for name in [
            "hourly",
            "%",
            "",
            "gitlab-backup-20261124T023000Z-8f3c-0,hourly",
            "gitlab-backup-20261124T023000Z-8f3c-0%",
        ] {
            assert!(zfs.remove(&snapshot("tank/git", name)).is_err(), "{name}");
        }
    }
}
