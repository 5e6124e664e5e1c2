//! A file gets its final name only when its content is complete and on disk, and the name is on
//! disk before any step that relies on it. strace(1) shows the order of the system calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gitlab_backup::config::EngineName;

use crate::quick_repository::{self, PASSWORD};

/// The calls with which a program creates, renames, removes and syncs files, in their order.
struct Calls(Vec<String>);

impl Calls {
    /// Runs the program with these arguments under strace.
    fn of(place: &Path, words: &[&str]) -> Self {
        let log = place.join("strace");
        let traced = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,open,openat,openat2,creat";
        // A call that another thread interrupts is logged in two lines. The first one has the
        // arguments.
        let output = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-yy",
                "--string-limit=4096",
                "-e",
                traced,
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_gitlab-backup"))
            .args(words)
            .output()
            .expect("strace cannot be run");
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(&log).unwrap();
        let calls: Vec<String> = text
            .lines()
            .filter(|line| !line.contains(" resumed>") && !line.contains(" = -1 "))
            .map(str::to_owned)
            .collect();
        assert!(!calls.is_empty(), "strace saw nothing");
        Self(calls)
    }

    /// The first call from the `from`th on that contains all of `words`.
    fn find(&self, from: usize, words: &[&str]) -> Option<usize> {
        let calls = self.0.iter().enumerate().skip(from);
        calls
            .filter(|(_, call)| words.iter().all(|word| call.contains(word)))
            .map(|(number, _)| number)
            .next()
    }

    /// Each rename and each new link: the number of the call, the old path and the new one.
    fn renames(&self) -> Vec<(usize, PathBuf, PathBuf)> {
        let calls = self.0.iter().enumerate();
        let renames = calls.filter(|(_, call)| call.contains(" rename") || call.contains(" link"));
        let both = |(number, call): (usize, &String)| match &paths(call)[..] {
            [from, to] => (number, from.clone(), to.clone()),
            _ => panic!("{call} is not understood"),
        };
        renames.map(both).collect()
    }

    /// Fails unless each file outside `repository` (which the engine writes) was written under a
    /// temporary name, synced, and renamed, and the directory was synced after that. Returns the
    /// final names, each with the number of the call that synced its directory.
    fn durable(&self, repository: &Path) -> Vec<(PathBuf, usize)> {
        let log = || self.0.join("\n");
        let mut durable = Vec::new();
        for (number, from, to) in self.renames() {
            if to.starts_with(repository) {
                continue;
            }
            let content = self.find(0, &["sync(", &format!("<{}>", from.display())]);
            assert!(
                content.is_some_and(|content| content < number),
                "{} is not synced before it is renamed to {}:\n{}",
                from.display(),
                to.display(),
                log()
            );
            let directory = format!("<{}>", to.parent().unwrap().display());
            let Some(synced) = self.find(number, &["sync(", &directory]) else {
                panic!("the directory of {} is not synced:\n{}", to.display(), log())
            };
            durable.push((to, synced));
        }
        for (number, call) in self.0.iter().enumerate() {
            if !call.contains("O_CREAT") && !call.contains(" creat(") {
                continue;
            }
            let created = paths(call).pop().unwrap();
            let passing = self.0[number..].iter().any(|call| {
                let ends = call.contains(" rename") || call.contains(" unlink");
                ends && paths(call).first() == Some(&created)
            });
            assert!(
                passing || created.starts_with(repository),
                "{} is written under its final name:\n{}",
                created.display(),
                log()
            );
        }
        durable
    }
}

/// The paths in a call. A name relative to a directory descriptor is joined to that directory.
fn paths(call: &str) -> Vec<PathBuf> {
    let pieces: Vec<&str> = call.split('"').collect();
    let named = pieces.chunks_exact(2);
    named
        .map(|pair| {
            let directory = pair[0].strip_suffix(">, ").and_then(|text| text.rsplit_once('<'));
            Path::new(directory.map_or("", |(_, directory)| directory)).join(pair[1])
        })
        .collect()
}

/// The number of the call that synced the directory of `path`.
fn number_of(durable: &[(PathBuf, usize)], path: &Path) -> usize {
    let found = durable.iter().find(|(name, _)| name == path);
    found.unwrap_or_else(|| panic!("{} is not among {durable:?}", path.display())).1
}

/// A configuration with this repository and this password file.
fn configuration(repository: &Path, password: &Path) -> String {
    format!(
        "[gitlab]\nlayout = \"custom\"\nwriters = [\"a.service\"]\n[files]\npaths = \
         [\"/srv/a\"]\n[repository]\nlocation = \"{}\"\npassword-file = \"{}\"\n",
        repository.display(),
        password.display()
    )
}

#[test]
fn a_new_key_is_on_disk_before_the_old_one_is_removed() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| place.path().join(name);
    let repository = at("repository");
    fs::write(at("config.toml"), configuration(&repository, &at("password"))).unwrap();
    fs::write(at("password"), PASSWORD).unwrap();
    quick_repository::create(EngineName::Restic, &repository);
    let config = at("config.toml").display().to_string();

    let spare = at("spare").display().to_string();
    let added = Calls::of(
        place.path(),
        &["--config", &config, "key", "add", "--new-password-file", &spare],
    );
    let durable = number_of(&added.durable(&repository), &at("spare"));
    let key = format!("{}/", at("repository/keys").display());
    assert!(
        added.find(durable, &[" rename", &key]).is_some(),
        "no key is added after its password is safe:\n{}",
        added.0.join("\n")
    );

    // A repository of its own: a second key with real parameters would cost half a second a call.
    fs::remove_dir_all(&repository).unwrap();
    quick_repository::create(EngineName::Restic, &repository);
    let rotated = Calls::of(place.path(), &["--config", &config, "key", "rotate"]);
    let durable = number_of(&rotated.durable(&repository), &at("password"));
    let removed = rotated.find(0, &[" unlink", &key]).expect("no key is removed");
    assert!(
        removed > durable,
        "the old key is removed before the new password is safe:\n{}",
        rotated.0.join("\n")
    );
}

#[test]
fn what_an_admin_has_written_is_on_disk() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| place.path().join(name);
    let text = |path: &Path| path.display().to_string();
    let repository = at("host/var/backups/gitlab");
    fs::create_dir_all(at("host/etc/systemd/system")).unwrap();
    fs::create_dir_all(at("host/home/git/repositories")).unwrap();
    fs::write(at("host/etc/systemd/system/gitlab-puma.service"), "").unwrap();
    let (host, config) = (text(&at("host")), text(&at("host/etc/gitlab-backup/config.toml")));

    let init = Calls::of(place.path(), &["init", "--root", &host]);
    number_of(&init.durable(&repository), Path::new(&config));

    let password = Path::new("/etc/gitlab-backup/repository.password");
    fs::write(&config, configuration(Path::new("/var/backups/gitlab"), password)).unwrap();
    let units = text(&at("units"));
    let generate = Calls::of(place.path(), &["--config", &config, "generate", "--output", &units]);
    number_of(&generate.durable(&repository), &at("units/gitlab-backup.target"));

    let pages = text(&at("pages"));
    let manual = Calls::of(place.path(), &["generate", "--man", &pages]);
    number_of(&manual.durable(&repository), &at("pages/gitlab-backup.8"));

    let install = Calls::of(place.path(), &["install", "--root", &host]);
    let durable = install.durable(&repository);
    for file in [
        "etc/systemd/system/gitlab-backup.target",
        "etc/gitlab-backup/repository.password",
        "etc/sysusers.d/gitlab-backup.conf",
        "var/lib/gitlab-backup/host.json",
    ] {
        number_of(&durable, &at("host").join(file));
    }
}
