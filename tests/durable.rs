//! What has to outlive a loss of power is on disk, its name too, before what it stands for is
//! removed: seen by strace(1).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)] // tests

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a program asked of the file systems, in its order.
struct Calls(Vec<String>);

impl Calls {
    /// Runs the program with these words under strace.
    fn of(place: &Path, words: &[&str]) -> Self {
        let log = place.join("strace");
        let traced = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";
        // Threads' calls are written where they begin: two at once would otherwise be cut into two
        // lines.
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
        let calls: Vec<String> =
            text.lines().filter(|line| !line.contains(" resumed>")).map(str::to_owned).collect();
        assert!(!calls.is_empty(), "strace saw nothing");
        Self(calls)
    }

    /// Where a call is that holds all of `words`, from the `from`th on.
    fn find(&self, from: usize, words: &[&str]) -> Option<usize> {
        let calls = self.0.iter().enumerate().skip(from);
        calls
            .filter(|(_, call)| words.iter().all(|word| call.contains(word)))
            .map(|(number, _)| number)
            .next()
    }

    /// Where the directory of `path` is written out after `path` got its name, and what was renamed
    /// before that.
    fn durable(&self, path: &Path) -> usize {
        let directory = path.parent().unwrap();
        // By its path, or by the directory's descriptor.
        let (whole, name) = (
            format!("\"{}\"", path.display()),
            format!("<{}>, \"{}\"", directory.display(), path.file_name().unwrap().display()),
        );
        let (number, call) = self
            .0
            .iter()
            .enumerate()
            .find(|(_, call)| {
                call.contains(" rename") && (call.contains(&whole) || call.contains(&name))
            })
            .unwrap_or_else(|| {
                panic!("nothing is renamed to {}:\n{}", path.display(), self.0.join("\n"))
            });
        let temporary = directory.join(call.split('"').nth(1).unwrap()).display().to_string();
        let content = self.find(0, &["sync(", &format!("<{temporary}>")]);
        assert!(
            content.is_some_and(|content| content < number),
            "{temporary} is not written out before it is renamed:\n{}",
            self.0.join("\n")
        );
        let directory = format!("<{}>", directory.display());
        let durable = self.find(number, &["sync(", &directory]);
        durable.unwrap_or_else(|| {
            panic!("the name {} is not written out:\n{}", path.display(), self.0.join("\n"))
        })
    }
}

#[test]
fn a_new_key_is_on_disk_before_the_old_one_is_removed() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| place.path().join(name);
    let config = format!(
        "[gitlab]\nlayout = \"custom\"\nwriters = [\"a.service\"]\n[files]\npaths = [\"/srv/a\"]\n[repository]\nlocation = \"{}\"\npassword-file = \"{}\"\n",
        at("repository").display(),
        at("password").display()
    );
    fs::write(at("config.toml"), config).unwrap();
    fs::write(at("password"), "old\n").unwrap();
    let made = Command::new("restic")
        .args(["--no-cache", "init"])
        .env("RESTIC_REPOSITORY", at("repository"))
        .env("RESTIC_PASSWORD", "old")
        .output()
        .expect("restic cannot be run");
    assert!(made.status.success(), "{made:?}");
    let config = at("config.toml").display().to_string();

    let spare = at("spare").display().to_string();
    let added = Calls::of(
        place.path(),
        &["--config", &config, "key", "add", "--new-password-file", &spare],
    );
    let durable = added.durable(&at("spare"));
    let key = format!("{}/", at("repository/keys").display());
    assert!(
        added.find(durable, &[" rename", &key]).is_some(),
        "no key is made after its password is safe:\n{}",
        added.0.join("\n")
    );

    let rotated = Calls::of(place.path(), &["--config", &config, "key", "rotate"]);
    let durable = rotated.durable(&at("password"));
    let removed = rotated.find(0, &[" unlink", &key]).expect("no key is removed");
    assert!(
        removed > durable,
        "the old key is removed before the new password is safe:\n{}",
        rotated.0.join("\n")
    );
}
