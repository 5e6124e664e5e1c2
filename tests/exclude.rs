//! What is left out is what git would ignore: patterns and paths made at random, judged by `git
//! check-ignore`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gitlab_backup::frozen::Exclude;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// What names and patterns are made of.
const NAMES: [&str; 16] = [
    "a", "b", "ab", "cache", "keep.tmp", "x.tmp", ".git", "!a", "#a", "a b", "ü", "{a,b}", "[a]",
    "a*", "a?b", "-",
];

/// A tree of directories, files and links, three deep, in a repository of its own.
struct Tree {
    directory: tempfile::TempDir,
    paths: Vec<(PathBuf, bool)>,
}

impl Tree {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut tree = Self { directory, paths: Vec::new() };
        assert!(
            Command::new("git")
                .args(["init", "--quiet"])
                .arg(tree.directory.path())
                .status()
                .unwrap()
                .success()
        );
        tree.fill(Path::new(""), 3);
        tree
    }

    /// Of the names some are directories, some files, and one is a link to a directory.
    fn fill(&mut self, below: &Path, depth: usize) {
        for (number, name) in NAMES.into_iter().enumerate().filter(|(_, name)| *name != ".git") {
            let path = below.join(name);
            let real = self.directory.path().join(&path);
            let is_directory = depth > 1 && (number % 2 == depth % 2 || name == "cache");
            if name == "-" {
                symlink("/", &real).unwrap();
            } else if is_directory {
                fs::create_dir(&real).unwrap();
            } else {
                fs::write(&real, "").unwrap();
            }
            self.paths.push((path.clone(), is_directory && name != "-"));
            if is_directory && name != "-" && depth > 1 {
                self.fill(&path, depth - 1);
            }
        }
    }

    /// What git ignores of it, by these patterns.
    fn ignored(&self, patterns: &[String]) -> BTreeSet<PathBuf> {
        fs::write(self.directory.path().join(".gitignore"), patterns.join("\n") + "\n").unwrap();
        let mut git = Command::new("git");
        git.arg("-C").arg(self.directory.path()).args([
            "-c",
            "core.excludesFile=/dev/null",
            "check-ignore",
            "--no-index",
            "-z",
            "--stdin",
        ]);
        let mut child = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let names: Vec<u8> = self
            .paths
            .iter()
            .flat_map(|(path, _)| [path.as_os_str().as_bytes(), b"\0"].concat())
            .collect();
        let writer = std::thread::spawn(move || input.write_all(&names).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(OsStr::from_bytes(path)))
            .collect()
    }

    /// What a walk that goes into no directory which is left out does not find.
    fn left_out(&self, exclude: &Exclude) -> BTreeSet<PathBuf> {
        let mut left_out = BTreeSet::new();
        for (path, is_directory) in &self.paths {
            if path.parent().is_some_and(|parent| left_out.contains(parent))
                || exclude.matches(&Path::new("/").join(path), *is_directory)
            {
                left_out.insert(path.clone());
            }
        }
        left_out
    }
}

/// A pattern of names with wildcards and the other signs that gitignore(5) knows.
fn pattern() -> impl Strategy<Value = String> {
    let sign = select(vec![
        "*", "**", "?", "[ab]", "[!a]", "[a-c]", "[]a]", "[!]-]", "[^b-]", "[!a-b]", "\\*", "\\?",
        "\\[", "\\{", "{a,b}", "tmp", ".", "e", "\\ ",
    ]);
    let name = prop_oneof![
        4 => select(NAMES.to_vec()).prop_map(str::to_owned),
        2 => (select(NAMES.to_vec()), any::<Index>(), sign.clone()).prop_map(|(name, at, sign)| {
            let mut at = at.index(name.len() + 1);
            while !name.is_char_boundary(at) { at -= 1; }
            format!("{}{sign}{}", &name[..at], &name[at..])
        }),
        1 => sign.prop_map(str::to_owned),
        1 => Just("**".to_owned()),
        1 => Just("*".to_owned()),
    ];
    let whole = (prop::collection::vec(name, 1..4), any::<bool>(), any::<bool>(), 0..4);
    whole.prop_map(|(names, begins, ends, back)| {
        let (back, begins, ends) = (
            if back == 0 { "!" } else { "" },
            if begins { "/" } else { "" },
            if ends { "/" } else { "" },
        );
        format!("{back}{begins}{}{ends}", names.join("/"))
    })
}

#[test]
fn what_is_left_out_is_what_git_would_ignore() {
    let tree = Tree::new();
    assert!(tree.paths.len() > 500, "{}", tree.paths.len());
    let mut runner = TestRunner::new(Config {
        cases: 10_000,
        failure_persistence: None,
        max_global_rejects: 100_000,
        ..Config::default()
    });
    let judged = Cell::new([0; 2]);
    let result = runner.run(&prop::collection::vec(pattern(), 1..5), |patterns| {
        // A pattern that is refused is not taken for anything.
        let Ok(exclude) = Exclude::new(&patterns) else {
            return Err(TestCaseError::reject("no pattern"));
        };
        let (expected, found) = (tree.ignored(&patterns), tree.left_out(&exclude));
        prop_assert!(
            expected == found,
            "{patterns:?}: {:?}",
            expected.symmetric_difference(&found).collect::<Vec<_>>()
        );
        let [all, some] = judged.get();
        judged.set([all + 1, some + usize::from(!expected.is_empty())]);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let [all, some] = judged.get();
    assert!(all >= 10_000 && some > all / 2, "{all} judged, and in {some} git ignores something");
}
