//! The end of a drain: pushes that have moved no ref are ended, others are not. With the real git.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gitlab_backup::gitlab::transfers::cut;

use crate::memory;

/// A commit to push, and a repository to receive it.
struct Repositories {
    place: tempfile::TempDir,
}

fn git(place: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-C"])
        .arg(place)
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Repositories {
    /// Two repositories, the second with this hook.
    fn new(hook: Option<(&str, &str)>) -> Self {
        let place = memory::directory();
        for (name, words) in [("work", &["init", "-q"][..]), ("bare", &["init", "-q", "--bare"])] {
            std::fs::create_dir(place.path().join(name)).unwrap();
            git(&place.path().join(name), words);
        }
        let own = Self { place };
        git(&own.at("work"), &["commit", "-q", "--allow-empty", "-m", "x"]);
        if let Some((name, script)) = hook {
            use std::os::unix::fs::PermissionsExt;
            let path = own.at("bare").join("hooks").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        own
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Starts git receive-pack or upload-pack, below a process that stands for Gitaly.
    fn serve(&self, command: &str) -> Child {
        let bare = self.at("bare");
        Command::new("sh")
            .args(["-c", "git \"$1\" \"$2\"; exit $?", "gitaly", command])
            .arg(bare)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// What a client sends to push the commit.
    fn push(&self) -> Vec<u8> {
        let commit = git(&self.at("work"), &["rev-parse", "HEAD"]);
        let command = format!("{:040} {commit} refs/heads/x\0report-status\n", 0);
        let mut request = format!("{:04x}{command}0000", command.len() + 4).into_bytes();
        let mut pack = Command::new("git")
            .arg("-C")
            .arg(self.at("work"))
            .args(["pack-objects", "--revs", "--stdout", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        pack.stdin.take().unwrap().write_all(b"HEAD\n").unwrap();
        request.extend(pack.wait_with_output().unwrap().stdout);
        request
    }

    fn has_ref(&self) -> bool {
        self.at("bare").join("refs/heads/x").exists()
    }
}

/// Waits until `is` holds.
fn until(is: impl Fn() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < Duration::from_secs(20), "it never holds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn cut_below(child: &Child) -> usize {
    cut(&[i32::try_from(child.id()).unwrap()]).unwrap()
}

#[test]
fn a_push_that_is_still_sent_is_ended() {
    let own = Repositories::new(None);
    let request = own.push();
    for sent in [0, 20, request.len() - 10] {
        let mut child = own.serve("receive-pack");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&request[..sent]).unwrap();
        until(|| cut_below(&child) == 1);
        assert!(!child.wait().unwrap().success(), "{sent} bytes");
        assert!(!own.has_ref());
        drop(stdin);
    }
}

#[test]
fn a_push_before_its_ref_moves_is_ended() {
    let own = Repositories::new(Some(("pre-receive", "touch asked; sleep 20")));
    let mut child = own.serve("receive-pack");
    child.stdin.take().unwrap().write_all(&own.push()).unwrap();
    until(|| own.at("bare").join("asked").exists());
    assert_eq!(cut_below(&child), 1);
    child.wait().unwrap();
    assert!(!own.has_ref());
}

#[test]
fn a_push_whose_ref_has_moved_is_not_ended() {
    let own = Repositories::new(Some((
        "post-receive",
        "touch told; while [ ! -e go ]; do sleep 0.05; done; touch done",
    )));
    let mut child = own.serve("receive-pack");
    child.stdin.take().unwrap().write_all(&own.push()).unwrap();
    until(|| own.at("bare").join("told").exists());
    for _ in 0..5 {
        assert_eq!(cut_below(&child), 0);
    }
    std::fs::write(own.at("bare").join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(own.has_ref() && own.at("bare").join("done").exists());
}

#[test]
fn a_fetch_is_ended_and_what_is_not_below_gitaly_is_not() {
    let own = Repositories::new(None);
    let mut child = own.serve("upload-pack");
    let mut other = own.serve("upload-pack");
    until(|| cut_below(&child) == 1);
    child.wait().unwrap();
    assert_eq!(other.try_wait().unwrap(), None);
    drop(other.stdin.take());
    other.wait().unwrap();
}
