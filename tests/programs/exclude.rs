//! Exclude patterns match what Git would ignore: random patterns are compared with
//! `git check-ignore`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gitlab_backup::frozen::Exclude;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::memory;
use crate::sizes::size;

/// The names in the tree, which the patterns are built from, too.
const NAMES: [&str; 16] = [
    "a", "b", "ab", "cache", "keep.tmp", "x.tmp", ".git", "!a", "#a", "a b", "ü", "{a,b}", "[a]",
    "a*", "a?b", "-",
];

/// The directory of the repository that the tree is in.
const TREE: &str = "tree";

/// A tree of directories, files and links, three levels deep, below a directory of a Git
/// repository; and one running `git check-ignore` that answers all questions about it.
struct Tree {
    directory: tempfile::TempDir,
    paths: Vec<(PathBuf, bool)>,
    git: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Tree {
    fn new() -> Self {
        let directory = memory::directory();
        let mut git = Command::new("git");
        let made = git.args(["init", "--quiet"]).arg(directory.path()).status().unwrap();
        assert!(made.success());
        fs::create_dir(directory.path().join(TREE)).unwrap();
        let mut git = Command::new("git");
        git.arg("-C").arg(directory.path()).args(["-c", "core.excludesFile=/dev/null"]);
        git.args(["check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin"]);
        let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = git.stdin.take().unwrap();
        let answers = BufReader::new(git.stdout.take().unwrap());
        let mut tree = Self { directory, paths: Vec::new(), git, questions, answers };
        tree.fill(Path::new(""), 3);
        tree
    }

    /// Creates some of the names as directories, some as files, and one as a link to a directory.
    fn fill(&mut self, below: &Path, depth: usize) {
        for (number, name) in NAMES.into_iter().enumerate().filter(|(_, name)| *name != ".git") {
            let path = below.join(name);
            let real = self.directory.path().join(TREE).join(&path);
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

    /// The paths that Git ignores with these patterns.
    fn ignored(&mut self, patterns: &[String]) -> BTreeSet<PathBuf> {
        let file = self.directory.path().join(TREE).join(".gitignore");
        fs::write(file, patterns.join("\n") + "\n").unwrap();
        // Git reads a directory's .gitignore when it enters the directory. The first question is
        // about a path outside, so that Git leaves the tree and reads the new patterns.
        let outside = PathBuf::from("outside");
        let paths = self.paths.iter().map(|(path, _)| Path::new(TREE).join(path));
        let paths: Vec<PathBuf> = std::iter::once(outside).chain(paths).collect();
        let question: Vec<u8> =
            paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
        // A pipe holds this much. A longer question could block while Git waits for its answers to
        // be read.
        assert!(question.len() < 65536, "{}", question.len());
        self.questions.write_all(&question).unwrap();
        let ignored = paths.into_iter().filter(|path| self.is_ignored(path));
        ignored.map(|path| path.strip_prefix(TREE).unwrap().to_owned()).collect()
    }

    /// Reads the answer about `path`: the file of the deciding pattern, its line, the pattern, and
    /// the path. If no pattern matches, the first three are empty.
    fn is_ignored(&mut self, path: &Path) -> bool {
        let [_, _, pattern, of] = [(); 4].map(|()| {
            let mut field = Vec::new();
            self.answers.read_until(0, &mut field).unwrap();
            assert_eq!(field.pop(), Some(0), "git ended");
            field
        });
        assert_eq!(of, path.as_os_str().as_bytes());
        !pattern.is_empty() && !pattern.starts_with(b"!")
    }

    /// The paths that a walk does not find if it does not enter excluded directories.
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

/// A pattern of names with wildcards and the other special characters of gitignore(5).
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

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.git.kill();
        let _ = self.git.wait();
    }
}

/// Compares this many lists of patterns. Returns how many were compared, and for how many of them
/// Git ignores something.
fn judge(cases: u32) -> [u32; 2] {
    let tree = RefCell::new(Tree::new());
    assert!(tree.borrow().paths.len() > 500, "{}", tree.borrow().paths.len());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_global_rejects: 100_000,
        ..Config::default()
    });
    let judged = Cell::new([0; 2]);
    let result = runner.run(&prop::collection::vec(pattern(), 1..5), |patterns| {
        // A refused pattern excludes nothing, so there is nothing to compare.
        let Ok(exclude) = Exclude::new(&patterns) else {
            return Err(TestCaseError::reject("no pattern"));
        };
        let expected = tree.borrow_mut().ignored(&patterns);
        let found = tree.borrow().left_out(&exclude);
        prop_assert!(
            expected == found,
            "{patterns:?}: {:?}",
            expected.symmetric_difference(&found).collect::<Vec<_>>()
        );
        let [all, some] = judged.get();
        judged.set([all + 1, some + u32::from(!expected.is_empty())]);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    judged.get()
}

#[test]
fn what_is_left_out_is_what_git_would_ignore() {
    // On two cores at once.
    let cases = u32::try_from(size(200, 5_000)).unwrap();
    let [one, two] = std::thread::scope(|scope| {
        let other = scope.spawn(|| judge(cases));
        [judge(cases), other.join().unwrap()]
    });
    let (all, some) = (one[0] + two[0], one[1] + two[1]);
    // About half of the random lists match something; far fewer would test nothing.
    assert!(
        all >= 2 * cases && some > all / 4,
        "{all} judged, and in {some} git ignores something"
    );
}
