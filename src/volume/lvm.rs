//! LVM: thin snapshots, and classic ones where the volume group has the room.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::host::{own, process};

use super::unmount::unmount;
use super::{Kind, Mount, Place, Snapshot, Volumes, is_ours};

/// The file systems of which a snapshot can be mounted beside them.
const FILES: [&str; 4] = ["ext2", "ext3", "ext4", "xfs"];
/// On every snapshot of ours: a name alone is no proof.
const TAG: &str = "gitlab-backup";
/// What is asked of every logical volume, lvs(8). An answer of the kernel's that is yes or no is 1
/// or 0, and -1 if there is none.
const FIELDS: &str = "vg_name,lv_name,lv_dm_path,origin,pool_lv,segtype,lv_attr,lv_tags,lv_size,vg_size,vg_free,data_percent,metadata_percent,\
                      lv_health_status,lv_snapshot_invalid,lv_suspended";

/// Logical volumes.
pub(super) struct Lvm {
    /// What a classic snapshot may hold, as lvcreate(8) takes it: "10%ORIGIN", "5G".
    pub(super) size: String,
}

/// A logical volume, as lvs(8) tells it.
#[derive(Debug, Clone, Deserialize)]
struct Volume {
    #[serde(rename = "vg_name")]
    group: String,
    #[serde(rename = "lv_name")]
    name: String,
    #[serde(rename = "lv_dm_path")]
    device: PathBuf,
    /// What it is a snapshot of.
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
    text.parse().map_err(|_| serde::de::Error::custom(format!("'{text}' is no number of bytes")))
}

impl Volume {
    fn is_thin(&self) -> bool {
        self.kind == "thin"
    }

    fn is_ours(&self) -> bool {
        is_ours(&self.name) && self.tags.split(',').any(|tag| tag == TAG)
    }

    fn is_full(&self) -> bool {
        [&self.data_percent, &self.metadata_percent]
            .iter()
            .any(|percent| percent.parse::<f64>().is_ok_and(|percent| percent >= 100.0))
    }

    /// Why it can have no snapshot, in words.
    fn refuses(&self, size: &str) -> Result<Option<String>> {
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
        let needed = room(size, self)?;
        Ok((needed > self.group_free).then(|| {
            format!(
                "its snapshot may need {}, of which the volume group {} has {} free (lvm-snapshot-size is {size})",
                mebibytes(needed),
                self.group,
                mebibytes(self.group_free)
            )
        }))
    }
}

/// A volume and what has to be known of it in the window, where nothing is asked; as text it can be
/// read: `vg/lv (thin, ext4)`.
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
    fn place(&self, mount: &Mount, path: &Path) -> Result<Result<Place, String>> {
        if !mount.source.starts_with("/dev/") {
            return Ok(Err(format!("it is on {}", mount.kind)));
        }
        if mount.kind == "btrfs" {
            // It tells its parts by an identity inside them, and would take the snapshot for the
            // volume.
            return Ok(Err(
                "btrfs must not see a volume and its copy: its own snapshots are the way"
                    .to_owned(),
            ));
        }
        if !FILES.contains(&mount.kind.as_str()) {
            return Ok(Err(format!("it is {}, which is none of {}", mount.kind, FILES.join(", "))));
        }
        if process::find("lvs", process::search_path()).is_none() {
            return Ok(Err(format!(
                "it is on {}, and there is no lvs(8) to ask: lvm2 is not installed",
                mount.source
            )));
        }
        let Some(volume) = of(&list()?, &mount.source).cloned() else {
            return Ok(Err(format!("it is on {}, which is no logical volume", mount.source)));
        };
        if let Some(reason) = volume.refuses(&self.size)? {
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
        Ok(Ok(Place { origin: origin.text(), inside }))
    }

    fn prepare(&self, _: &Snapshot) -> Result<()> {
        // lvcreate would have modprobe(8) load what snapshots need, also thin ones, which our unit
        // may not. The kernel does it by itself when it is asked for the version. A classic
        // snapshot's room could be made now too; but to convert it in the window takes longer than
        // to make it there.
        let asked = process::run(lvm("dmsetup").args(["target-version", "snapshot"]));
        if let Err(error) = asked {
            // Old ones cannot ask.
            let there = process::run(lvm("dmsetup").arg("targets"))?
                .lines()
                .any(|line| line.split_whitespace().next() == Some("snapshot"));
            ensure!(
                there,
                "the kernel can make no snapshots of logical volumes: its module dm_snapshot is not there ({error:#})"
            );
        }
        Ok(())
    }

    fn take(&self, snapshot: &Snapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        let mut command = lvm("lvcreate");
        command.args(["-qq", "--yes", "--snapshot", "--name", &snapshot.name, "--addtag", TAG]);
        if !origin.thin {
            // Without a size it would be a thin one, of an origin that it makes read-only.
            command
                .args([if self.size.contains('%') { "--extents" } else { "--size" }, &self.size]);
        }
        process::run(command.arg(format!("{}/{}", origin.group, origin.name))).map(drop)
    }

    fn mount(&self, snapshot: &Snapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        if origin.thin {
            // A thin snapshot is made such that nothing activates it by mistake.
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
        // It was taken of a file system that device-mapper had frozen: there is nothing to replay,
        // and replaying would write.
        let options = match origin.files {
            "xfs" => "ro,nosuid,nodev,noexec,nouuid,norecovery",
            "ext3" | "ext4" => "ro,nosuid,nodev,noexec,noload",
            _ => "ro,nosuid,nodev,noexec",
        };
        own::make(&snapshot.at)?;
        let mut command = Command::new("mount");
        // No helper of mount(8)'s: the kernel knows every file system that is taken.
        command
            .args(["--internal-only", "-t", origin.files, "-o", options])
            .arg(device(origin.group, &snapshot.name))
            .arg(&snapshot.at);
        process::run(&mut command).map(drop)
    }

    fn intact(&self, snapshot: &Snapshot) -> Result<()> {
        let origin = Origin::parse(&snapshot.origin)?;
        intact(&list()?, &origin, snapshot, &self.size)
    }

    fn undo(&self, snapshot: &Snapshot) -> Result<()> {
        unmount(&snapshot.at)?;
        let origin = Origin::parse(&snapshot.origin)?;
        let volumes = list()?;
        let named = |name: &str| {
            volumes.iter().find(|volume| volume.group == origin.group && volume.name == name)
        };
        // An lvcreate that was killed at the worst moment leaves the files frozen for good.
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
            "{}/{} is not ours, in spite of its name: it has no tag {TAG}; left alone",
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

    fn leftovers(&self, mounts: &[Mount]) -> Result<Vec<Snapshot>> {
        if process::find("lvs", process::search_path()).is_none() {
            return Ok(Vec::new());
        }
        Ok(leftovers(&list()?, mounts))
    }
}

/// A program of LVM's. It would complain of every descriptor that it inherits, and in the user's
/// language.
fn lvm(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LVM_SUPPRESS_FD_WARNINGS", "1").env("LC_ALL", "C");
    command
}

/// All logical volumes; one with several segments more than once.
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
        report: Vec<Report>,
    }
    #[derive(Deserialize)]
    struct Report {
        #[serde(default)]
        lv: Vec<Volume>,
    }
    let output: Output =
        serde_json::from_str(json).context("lvs said what cannot be understood")?;
    Ok(output.report.into_iter().flat_map(|report| report.lv).collect())
}

fn device(group: &str, name: &str) -> PathBuf {
    ["/dev", group, name].iter().collect()
}

/// Whether two names are of the same device: each has several.
fn same(source: &str, device: &Path) -> bool {
    let real = |path: &Path| own::canonical(path).unwrap_or_else(|_| path.to_owned());
    Path::new(source) == device
        || source.starts_with("/dev/") && real(Path::new(source)) == real(device)
}

/// The volume that is `source`.
fn of<'a>(volumes: &'a [Volume], source: &str) -> Option<&'a Volume> {
    volumes.iter().find(|volume| {
        same(source, &volume.device) || Path::new(source) == device(&volume.group, &volume.name)
    })
}

/// What a classic snapshot that cannot be read has most likely suffered.
pub(super) fn unreadable(snapshot: &Snapshot) -> Option<String> {
    let origin = Origin::parse(&snapshot.origin).ok().filter(|origin| !origin.thin)?;
    let (group, name) = (origin.group, origin.name);
    Some(format!(
        "the snapshot of {group}/{name} cannot be read: most likely it overflowed, and files.lvm-snapshot-size is to be larger"
    ))
}

fn intact(volumes: &[Volume], origin: &Origin, snapshot: &Snapshot, size: &str) -> Result<()> {
    let named = |name: &str| {
        volumes.iter().find(|volume| volume.group == origin.group && volume.name == name)
    };
    // A unit without devices sees no volumes at all. What it has read is good all the same: of a
    // snapshot that overflowed the kernel lets nothing be read any more.
    if named(origin.name).is_none() {
        return Ok(());
    }
    let Some(found) = named(&snapshot.name) else {
        bail!("the snapshot {}/{} is gone: somebody removed it", origin.group, snapshot.name);
    };
    if !origin.thin {
        // Without the kernel's word it may be anything.
        ensure!(
            found.invalid == "0" && !found.is_full(),
            "the snapshot of {}/{} overflowed: more was written to it during the backup than lvm-snapshot-size ({size}) holds; use a larger one",
            origin.group,
            origin.name
        );
    } else if let Some(pool) = named(&found.pool) {
        ensure!(
            pool.health.is_empty() && !pool.is_full(),
            "the thin pool {}/{}, which {} is in, ran out of space{}: make room in it",
            origin.group,
            pool.name,
            origin.name,
            if pool.health.is_empty() { String::new() } else { format!(" ({})", pool.health) }
        );
    }
    Ok(())
}

/// What is named and tagged as ours, of volumes that are mounted: a group that several hosts share
/// has other hosts' too.
fn leftovers(volumes: &[Volume], mounts: &[Mount]) -> Vec<Snapshot> {
    let mut found = Vec::new();
    for mount in mounts {
        let Some(volume) = of(volumes, &mount.source) else { continue };
        // One that was not finished knows no origin yet.
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
            if found.iter().all(|found: &Snapshot| found.name != left.name) {
                found.push(Snapshot {
                    kind: Kind::Lvm,
                    origin: origin.clone(),
                    name: left.name.clone(),
                    at: PathBuf::new(),
                });
            }
        }
    }
    found
}

/// How many bytes of its group a snapshot of `volume` may take, by a size as lvcreate(8) takes it.
fn room(size: &str, volume: &Volume) -> Result<u64> {
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
            // lvcreate's own, without a unit.
            "m" | "" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift)
    };
    parse().with_context(|| format!("lvm-snapshot-size: '{size}' is no size as lvcreate(8) takes it, such as \"10%ORIGIN\" or \"5G\""))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lvs 2.03.16 said on a host with a classic and a thin volume, each with a snapshot of
    /// ours, the classic one overflowed.
    const SAID: &str = include_str!("../../tests/fixtures/lvs.json");
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

    fn snapshot(origin: &str, name: &str) -> Snapshot {
        Snapshot {
            kind: Kind::Lvm,
            origin: origin.to_owned(),
            name: name.to_owned(),
            at: PathBuf::new(),
        }
    }

    #[test]
    fn finds_the_volume_by_either_name_of_its_device() {
        let volumes = parse(SAID).unwrap();
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
            parse(SAID).unwrap().into_iter().find(|volume| volume.name == "plain").unwrap();
        let room = |size| room(size, &volume);
        assert_eq!(room("10%ORIGIN").unwrap(), volume.size / 10);
        assert_eq!(room("50%VG").unwrap(), volume.group_size / 2);
        assert_eq!(room("100%FREE").unwrap(), volume.group_free);
        assert_eq!(
            (room("5G").unwrap(), room("5g").unwrap(), room("5").unwrap()),
            (5 << 30, 5 << 30, 5 << 20)
        );
        for bad in
            ["", "10%", "10%PVS", "G", "+5G", "+5%VG", "-5G", "5X", "5GiB", "18446744073709551615G"]
        {
            assert!(room(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_classic_volume_needs_room_and_a_thin_one_none() {
        let mut volumes = parse(SAID).unwrap();
        assert_eq!(named(&mut volumes, "plain").refuses("10%ORIGIN").unwrap(), None);
        let why = named(&mut volumes, "plain").refuses("5G").unwrap().unwrap();
        assert_eq!(
            why,
            "its snapshot may need 5120 MiB, of which the volume group vg has 3600 MiB free (lvm-snapshot-size is 5G)"
        );
        assert_eq!(named(&mut volumes, "thin").refuses("5G").unwrap(), None);
        assert!(named(&mut volumes, OURS[0]).refuses("5M").unwrap().is_some());
    }

    #[test]
    fn an_overflow_is_named() {
        let mut volumes = parse(SAID).unwrap();
        let check = |volumes: &[Volume], origin: &str, name: &str| {
            let error =
                intact(volumes, &Origin::parse(origin).unwrap(), &snapshot(origin, name), "8M")
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
        let mut volumes = parse(SAID).unwrap();
        let names = |volumes: &[Volume], mounts: &[Mount]| {
            leftovers(volumes, mounts).into_iter().map(|found| found.name).collect::<Vec<_>>()
        };
        let both = [mount("/dev/mapper/vg-plain", "ext4"), mount("/dev/mapper/vg-thin", "xfs")];
        assert_eq!(names(&volumes, &both), OURS);
        assert_eq!(names(&volumes, &both[..1]), OURS[..1]);
        assert_eq!(leftovers(&volumes, &both)[1].origin, "vg/thin (thin, xfs)");
        assert!(names(&volumes, &[mount("/dev/sda1", "ext4")]).is_empty());
        // Half made: no snapshot of anything yet.
        named(&mut volumes, OURS[0]).origin = String::new();
        assert_eq!(names(&volumes, &both), OURS);
        named(&mut volumes, OURS[0]).tags = "other,gitlab-backup-too".to_owned();
        named(&mut volumes, OURS[1]).name = "gitlab-backup-manual".to_owned();
        assert!(names(&volumes, &both).is_empty());
    }
}
