//! LVM: thin snapshots, and classic ones if the volume group has enough space.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::host::{own, process};

use super::unmount::unmount;
use super::{Mount, VolumeKind, VolumePlace, VolumeSnapshot, Volumes, has_our_name};

/// The file systems whose snapshots can be mounted at the same time as the original.
const FILES: [&str; 4] = ["ext2", "ext3", "ext4", "xfs"];
/// The tag of every snapshot that this program creates: the name alone does not prove it.
const TAG: &str = "gitlab-backup";
/// The queried fields of every logical volume, lvs(8). Yes or no is 1 or 0, and -1 if unknown.
const FIELDS: &str = "vg_name,lv_name,lv_dm_path,origin,pool_lv,segtype,lv_attr,lv_tags,lv_size,\
                      vg_size,vg_free,data_percent,metadata_percent,lv_health_status,\
                      lv_snapshot_invalid,lv_suspended";

/// Logical volumes.
pub(super) struct Lvm {
    /// The size of a classic snapshot in the notation of lvcreate(8): "10%ORIGIN", "5G".
    pub(super) size: String,
}

/// A logical volume as reported by lvs(8).
#[derive(Debug, Clone, Deserialize)]
struct Volume {
    #[serde(rename = "vg_name")]
    group: String,
    #[serde(rename = "lv_name")]
    name: String,
    #[serde(rename = "lv_dm_path")]
    device: PathBuf,
    /// The volume of which it is a snapshot.
    origin: String,
    #[serde(rename = "pool_lv")]
    pool: String,
    #[serde(rename = "segtype")]
    kind: String,
    #[serde(rename = "lv_attr")]
    attributes: String,
    #[serde(rename = "lv_tags")]
    tags: String,
    #[serde(rename = "lv_size", deserialize_with = "number")]
    size: u64,
    #[serde(rename = "vg_size", deserialize_with = "number")]
    group_size: u64,
    #[serde(rename = "vg_free", deserialize_with = "number")]
    group_free: u64,
    data_percent: String,
    metadata_percent: String,
    #[serde(rename = "lv_health_status")]
    health: String,
    #[serde(rename = "lv_snapshot_invalid")]
    invalid: String,
    #[serde(rename = "lv_suspended")]
    suspended: String,
}

fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("'{text}' is not a number of bytes")))
}

impl Volume {
    fn is_thin(&self) -> bool {
        self.kind == "thin"
    }

    fn is_ours(&self) -> bool {
        has_our_name(&self.name) && self.tags.split(',').any(|tag| tag == TAG)
    }

    fn is_full(&self) -> bool {
        [&self.data_percent, &self.metadata_percent]
            .iter()
            .any(|percent| percent.parse::<f64>().is_ok_and(|percent| percent >= 100.0))
    }

    /// The reason why it cannot have a snapshot, if there is one.
    fn refusal(&self, size: &str) -> Result<Option<String>> {
        // lvs(8), lv_attr: the first character is the type.
        if self.attributes.starts_with(['s', 'S', 'O']) {
            return Ok(Some(format!(
                "{}/{} is a snapshot itself, or being merged with one",
                self.group, self.name
            )));
        }
        if self.is_thin() {
            return Ok(None);
        }
        let needed = needed(size, self)?;
        Ok((needed > self.group_free).then(|| {
            format!(
                "its snapshot may need {}, but the volume group {} has only {} free \
                 (lvm-snapshot-size is {size})",
                mebibytes(needed),
                self.group,
                mebibytes(self.group_free)
            )
        }))
    }
}

/// A volume and its properties, so that nothing has to be queried in the window. As text it is
/// `vg/lv (thin, ext4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin<'a> {
    group: &'a str,
    name: &'a str,
    thin: bool,
    files: &'a str,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let parse = || {
            let (path, rest) = text.strip_suffix(')')?.split_once(" (")?;
            let (group, name) = path.split_once('/')?;
            let (kind, files) = rest.split_once(", ")?;
            Some(Self { group, name, thin: kind == "thin", files })
        };
        parse().with_context(|| format!("'{text}' names no logical volume"))
    }

    fn text(&self) -> String {
        format!(
            "{}/{} ({}, {})",
            self.group,
            self.name,
            if self.thin { "thin" } else { "classic" },
            self.files
        )
    }
}

impl Volumes for Lvm {
    fn locate(&self, mount: &Mount, path: &Path) -> Result<Result<VolumePlace, String>> {
        if !mount.source.starts_with("/dev/") {
            return Ok(Err(format!("it is on {}", mount.kind)));
        }
        if mount.kind == "btrfs" {
            // btrfs identifies devices by a UUID inside them, and would confuse the snapshot with
            // the volume.
            return Ok(Err("btrfs must not see a volume and its copy: use the snapshots of \
                           btrfs itself"
                .to_owned()));
        }
        if !FILES.contains(&mount.kind.as_str()) {
            return Ok(Err(format!(
                "it is {}, and only {} are supported",
                mount.kind,
                FILES.join(", ")
            )));
        }
        if process::find("lvs", process::search_path()).is_none() {
            return Ok(Err(format!(
                "it is on {}, and lvs(8) is missing: lvm2 is not installed",
                mount.source
            )));
        }
        let Some(volume) = of(&list()?, &mount.source).cloned() else {
            return Ok(Err(format!("it is on {}, which is not a logical volume", mount.source)));
        };
        if let Some(reason) = volume.refusal(&self.size)? {
            return Ok(Err(reason));
        }
        let below = path.strip_prefix(&mount.target).context("the path is not below its mount")?;
        let inside = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(below);
        let origin = Origin {
            group: &volume.group,
            name: &volume.name,
            thin: volume.is_thin(),
            files: &mount.kind,
        };
        Ok(Ok(VolumePlace { origin: origin.text(), inside }))
    }

    fn prepare(&self, _: &VolumeSnapshot) -> Result<()> {
        // For any snapshot, lvcreate runs modprobe(8), which the unit must not. The kernel loads
        // the module itself when it is asked for the version. The space of a classic snapshot could
        // be allocated now too, but converting it in the window takes longer than creating it
        // there.
        let version = process::run(lvm("dmsetup").args(["target-version", "snapshot"]));
        if let Err(error) = version {
            // Old versions of dmsetup do not have this command.
            let available = process::run(lvm("dmsetup").arg("targets"))?
                .lines()
                .any(|line| line.split_whitespace().next() == Some("snapshot"));
            ensure!(
                available,
                "the kernel cannot make snapshots of logical volumes: its module dm_snapshot is \
                 missing ({error:#})"
            );
        }
        Ok(())
    }

    fn take(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        let mut command = lvm("lvcreate");
        command.args(["-qq", "--yes", "--snapshot", "--name", &snapshot.name, "--addtag", TAG]);
        if !origin.thin {
            // Without a size, lvcreate would create a thin snapshot and make the origin read-only.
            command
                .args([if self.size.contains('%') { "--extents" } else { "--size" }, &self.size]);
        }
        process::run(command.arg(format!("{}/{}", origin.group, origin.name))).map(drop)
    }

    fn mount(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        if origin.thin {
            // A thin snapshot has a flag that prevents accidental activation.
            let volume = format!("{}/{}", origin.group, snapshot.name);
            process::run(lvm("lvchange").args([
                "-qq",
                "--yes",
                "--activate",
                "y",
                "--ignoreactivationskip",
                &volume,
            ]))?;
        }
        // device-mapper froze the file system for the snapshot: there is no journal to replay, and
        // a replay would write.
        let options = match origin.files {
            "xfs" => "ro,nosuid,nodev,noexec,nouuid,norecovery",
            "ext3" | "ext4" => "ro,nosuid,nodev,noexec,noload",
            _ => "ro,nosuid,nodev,noexec",
        };
        own::make(&snapshot.at)?;
        let mut command = Command::new("mount");
        // Without helpers of mount(8): the kernel itself mounts all file systems in `FILES`.
        command
            .args(["--internal-only", "-t", origin.files, "-o", options])
            .arg(device(origin.group, &snapshot.name))
            .arg(&snapshot.at);
        process::run(&mut command).map(drop)
    }

    fn ensure_intact(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        ensure_intact(&list()?, &origin, snapshot, &self.size)
    }

    fn remove(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        unmount(&snapshot.at)?;
        let origin = Origin::parse(&snapshot.origin)?;
        let volumes = list()?;
        let named = |name: &str| {
            volumes.iter().find(|volume| volume.group == origin.group && volume.name == name)
        };
        // An lvcreate that was killed at the wrong moment leaves the file system frozen.
        if named(origin.name).is_some_and(|volume| volume.suspended == "1") {
            process::run(lvm("lvchange").args([
                "-qq",
                "--refresh",
                &format!("{}/{}", origin.group, origin.name),
            ]))?;
        }
        let Some(found) = named(&snapshot.name) else { return Ok(()) };
        ensure!(
            found.is_ours(),
            "{}/{} was not created by gitlab-backup, in spite of its name: it has no tag {TAG}",
            found.group,
            found.name
        );
        for mount in super::mounts()?.iter().filter(|mount| same(&mount.source, &found.device)) {
            process::run(Command::new("umount").arg(&mount.target))?;
        }
        process::run(lvm("lvremove").args([
            "-qq",
            "--yes",
            "--force",
            &format!("{}/{}", found.group, found.name),
        ]))
        .map(drop)
    }

    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<VolumeSnapshot>> {
        if process::find("lvs", process::search_path()).is_none() {
            return Ok(Vec::new());
        }
        Ok(leftovers(&list()?, mounts))
    }
}

/// A program of LVM, in English, and without its warning for each inherited descriptor.
fn lvm(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LVM_SUPPRESS_FD_WARNINGS", "1").env("LC_ALL", "C");
    command
}

/// All logical volumes. One with several segments is listed several times.
fn list() -> Result<Vec<Volume>> {
    let mut command = lvm("lvs");
    command.args([
        "-qq",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "--binary",
        "--options",
        FIELDS,
    ]);
    parse(&process::run(&mut command)?)
}

fn parse(json: &str) -> Result<Vec<Volume>> {
    #[derive(Deserialize)]
    struct Output {
        report: Vec<LvmReport>,
    }
    #[derive(Deserialize)]
    struct LvmReport {
        #[serde(default)]
        lv: Vec<Volume>,
    }
    let output: Output = serde_json::from_str(json).context("cannot parse the output of lvs")?;
    Ok(output.report.into_iter().flat_map(|report| report.lv).collect())
}

fn device(group: &str, name: &str) -> PathBuf {
    ["/dev", group, name].iter().collect()
}

/// Whether two paths are the same device, which has several.
fn same(source: &str, device: &Path) -> bool {
    let real = |path: &Path| own::canonical(path).unwrap_or_else(|_| path.to_owned());
    Path::new(source) == device
        || source.starts_with("/dev/") && real(Path::new(source)) == real(device)
}

/// The volume whose device is `source`.
fn of<'a>(volumes: &'a [Volume], source: &str) -> Option<&'a Volume> {
    volumes.iter().find(|volume| {
        same(source, &volume.device) || Path::new(source) == device(&volume.group, &volume.name)
    })
}

/// The likely reason why a classic snapshot cannot be read.
pub(super) fn unreadable(snapshot: &VolumeSnapshot) -> Option<String> {
    let origin = Origin::parse(&snapshot.origin).ok().filter(|origin| !origin.thin)?;
    let (group, name) = (origin.group, origin.name);
    Some(format!(
        "the snapshot of {group}/{name} cannot be read: most likely it overflowed; increase \
         files.lvm-snapshot-size"
    ))
}

fn ensure_intact(
    volumes: &[Volume],
    origin: &Origin,
    snapshot: &VolumeSnapshot,
    size: &str,
) -> Result<()> {
    let named = |name: &str| {
        volumes.iter().find(|volume| volume.group == origin.group && volume.name == name)
    };
    // A unit without access to devices sees no volumes at all. The data that it has read is valid
    // nevertheless, because the kernel refuses all reads from a snapshot that has overflowed.
    if named(origin.name).is_none() {
        return Ok(());
    }
    let Some(found) = named(&snapshot.name) else {
        bail!("the snapshot {}/{} is gone: somebody removed it", origin.group, snapshot.name);
    };
    if !origin.thin {
        // An unknown state (-1) counts as invalid.
        ensure!(
            found.invalid == "0" && !found.is_full(),
            "the snapshot of {}/{} overflowed: more was written to it during the backup than \
             lvm-snapshot-size ({size}) holds; use a larger one",
            origin.group,
            origin.name
        );
    } else if let Some(pool) = named(&found.pool) {
        ensure!(
            pool.health.is_empty() && !pool.is_full(),
            "the thin pool {}/{}, which {} is in, ran out of space{}: extend it",
            origin.group,
            pool.name,
            origin.name,
            if pool.health.is_empty() { String::new() } else { format!(" ({})", pool.health) }
        );
    }
    Ok(())
}

/// The snapshots with the name and tag of this program, of mounted volumes only: a volume group
/// that several hosts share has snapshots of other hosts too.
fn leftovers(volumes: &[Volume], mounts: &[Mount]) -> Vec<VolumeSnapshot> {
    let mut found = Vec::new();
    for mount in mounts {
        let Some(volume) = of(volumes, &mount.source) else { continue };
        // An unfinished snapshot has no origin yet.
        let left = |left: &&Volume| {
            left.group == volume.group
                && left.is_ours()
                && (left.origin == volume.name || left.origin.is_empty())
        };
        let origin = Origin {
            group: &volume.group,
            name: &volume.name,
            thin: volume.is_thin(),
            files: &mount.kind,
        }
        .text();
        for left in volumes.iter().filter(left) {
            if found.iter().all(|found: &VolumeSnapshot| found.name != left.name) {
                found.push(VolumeSnapshot {
                    kind: VolumeKind::Lvm,
                    origin: origin.clone(),
                    name: left.name.clone(),
                    at: PathBuf::new(),
                });
            }
        }
    }
    found
}

/// The most bytes of the volume group that a snapshot of `volume` uses, for a size in the notation
/// of lvcreate(8).
fn needed(size: &str, volume: &Volume) -> Result<u64> {
    let parse = || {
        size.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
        if let Some((number, of)) = size.split_once('%') {
            let whole = match of {
                "ORIGIN" => volume.size,
                "VG" => volume.group_size,
                "FREE" => volume.group_free,
                _ => return None,
            };
            return whole.checked_mul(number.parse().ok()?).map(|bytes| bytes / 100);
        }
        let (number, unit) =
            size.split_at(size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len()));
        let shift = match unit.to_ascii_lowercase().as_str() {
            "b" => 0,
            "s" => 9,
            "k" => 10,
            // Without a unit, lvcreate assumes MiB.
            "m" | "" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift)
    };
    parse().with_context(|| {
        format!(
            "lvm-snapshot-size: '{size}' is not a size as for lvcreate(8), such as \"10%ORIGIN\" \
             or \"5G\""
        )
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of lvs 2.03.16 on a host with a classic and a thin volume. Each has a snapshot of
    /// this program; the classic one has overflowed.
    const OUTPUT: &str = include_str!("../../tests/fixtures/lvs.json");
    const OURS: [&str; 2] =
        ["gitlab-backup-20261124T023000Z-8f3c-0", "gitlab-backup-20261124T023000Z-8f3c-1"];

    fn named<'a>(volumes: &'a mut [Volume], name: &str) -> &'a mut Volume {
        volumes.iter_mut().find(|volume| volume.name == name).unwrap()
    }

    fn mount(source: &str, kind: &str) -> Mount {
        Mount {
            target: "/home/git".into(),
            source: source.to_owned(),
            kind: kind.to_owned(),
            root: "/".into(),
        }
    }

    fn snapshot(origin: &str, name: &str) -> VolumeSnapshot {
        VolumeSnapshot {
            kind: VolumeKind::Lvm,
            origin: origin.to_owned(),
            name: name.to_owned(),
            at: PathBuf::new(),
        }
    }

    #[test]
    fn finds_the_volume_by_either_name_of_its_device() {
        let volumes = parse(OUTPUT).unwrap();
        for source in ["/dev/mapper/vg-plain", "/dev/vg/plain"] {
            assert_eq!(of(&volumes, source).unwrap().name, "plain", "{source}");
        }
        assert!(of(&volumes, "/dev/sda1").is_none());
        assert!(of(&volumes, "server:/export").is_none());
    }

    #[test]
    fn origins_read_back() {
        for text in ["vg/lv (thin, xfs)", "vg-1/lv.2 (classic, ext4)"] {
            assert_eq!(Origin::parse(text).unwrap().text(), text);
        }
        assert!(Origin::parse("vg/lv").is_err());
    }

    #[test]
    fn a_size_is_read_as_lvcreate_reads_it() {
        let volume =
            parse(OUTPUT).unwrap().into_iter().find(|volume| volume.name == "plain").unwrap();
        let needed = |size| needed(size, &volume);
        assert_eq!(needed("10%ORIGIN").unwrap(), volume.size / 10);
        assert_eq!(needed("50%VG").unwrap(), volume.group_size / 2);
        assert_eq!(needed("100%FREE").unwrap(), volume.group_free);
        assert_eq!(
            (needed("5G").unwrap(), needed("5g").unwrap(), needed("5").unwrap()),
            (5 << 30, 5 << 30, 5 << 20)
        );
        for bad in
            ["", "10%", "10%PVS", "G", "+5G", "+5%VG", "-5G", "5X", "5GiB", "18446744073709551615G"]
        {
            assert!(needed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_classic_volume_needs_room_and_a_thin_one_none() {
        let mut volumes = parse(OUTPUT).unwrap();
        assert_eq!(named(&mut volumes, "plain").refusal("10%ORIGIN").unwrap(), None);
        let why = named(&mut volumes, "plain").refusal("5G").unwrap().unwrap();
        assert_eq!(
            why,
            "its snapshot may need 5120 MiB, but the volume group vg has only 3600 MiB free \
             (lvm-snapshot-size is 5G)"
        );
        assert_eq!(named(&mut volumes, "thin").refusal("5G").unwrap(), None);
        assert!(named(&mut volumes, OURS[0]).refusal("5M").unwrap().is_some());
    }

    #[test]
    fn an_overflow_is_named() {
        let mut volumes = parse(OUTPUT).unwrap();
        let check = |volumes: &[Volume], origin: &str, name: &str| {
            let error = ensure_intact(
                volumes,
                &Origin::parse(origin).unwrap(),
                &snapshot(origin, name),
                "8M",
            )
            .err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        let (classic, thin) = ("vg/plain (classic, ext4)", "vg/thin (thin, xfs)");
        assert!(check(&volumes, classic, OURS[0]).contains("vg/plain overflowed"));
        assert_eq!(check(&volumes, thin, OURS[1]), "");
        assert!(check(&volumes, thin, "gone").contains("gone"));
        let snapshot = named(&mut volumes, OURS[0]);
        (snapshot.data_percent, snapshot.invalid) = ("99.98".to_owned(), "0".to_owned());
        assert_eq!(check(&volumes, classic, OURS[0]), "");
        named(&mut volumes, OURS[0]).invalid = "-1".to_owned();
        assert!(check(&volumes, classic, OURS[0]).contains("overflowed"));
        named(&mut volumes, "pool").data_percent = "100.00".to_owned();
        assert!(
            check(&volumes, thin, OURS[1]).contains("vg/pool, which thin is in, ran out of space:")
        );
        named(&mut volumes, "pool").health = "out_of_data".to_owned();
        assert!(check(&volumes, thin, OURS[1]).contains("(out_of_data)"));
    }

    #[test]
    fn leftovers_are_named_and_tagged_as_ours_and_of_what_is_mounted() {
        let mut volumes = parse(OUTPUT).unwrap();
        let names = |volumes: &[Volume], mounts: &[Mount]| {
            leftovers(volumes, mounts).into_iter().map(|found| found.name).collect::<Vec<_>>()
        };
        let both = [mount("/dev/mapper/vg-plain", "ext4"), mount("/dev/mapper/vg-thin", "xfs")];
        assert_eq!(names(&volumes, &both), OURS);
        assert_eq!(names(&volumes, &both[..1]), OURS[..1]);
        assert_eq!(leftovers(&volumes, &both)[1].origin, "vg/thin (thin, xfs)");
        assert!(names(&volumes, &[mount("/dev/sda1", "ext4")]).is_empty());
        // Unfinished: it has no origin yet.
        named(&mut volumes, OURS[0]).origin = String::new();
        assert_eq!(names(&volumes, &both), OURS);
        named(&mut volumes, OURS[0]).tags = "other,gitlab-backup-too".to_owned();
        named(&mut volumes, OURS[1]).name = "gitlab-backup-manual".to_owned();
        assert!(names(&volumes, &both).is_empty());
    }
}
