//! The program as it is called, on a tree of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use gitlab_backup::config::EngineName;
use tempfile::TempDir;

use crate::memory;
use crate::quick_repository::{self, PASSWORD};

/// A host's tree with the units of a source installation and this configuration.
fn host(config: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in ["gitlab-puma.service", "gitlab-sidekiq.service"] {
        fs::write(units.join(unit), "# an admin's own\n").unwrap();
    }
    fs::create_dir_all(root.path().join("home/git/repositories")).unwrap();
    fs::create_dir_all(root.path().join("etc/gitlab-backup")).unwrap();
    fs::write(root.path().join("etc/gitlab-backup/config.toml"), config).unwrap();
    root
}

fn call(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::cargo_bin("gitlab-backup").unwrap();
    command.args(words).arg("--root").arg(root).output().unwrap()
}

fn ours(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("etc/systemd/system")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("gitlab-backup")).collect()
}

#[test]
fn init_writes_what_is_found_and_never_over_another() {
    let root = host("");
    fs::remove_file(root.path().join("etc/gitlab-backup/config.toml")).unwrap();
    let first = call(root.path(), &["init"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let config = root.path().join("etc/gitlab-backup/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    for line in [
        "layout = \"source\"",
        "# writers = [\"gitlab-puma.service\", \"gitlab-sidekiq.service\"]",
        "#   \"/home/git/repositories\",",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // An admin's.
    fs::write(&config, "# mine\n").unwrap();
    let second = call(root.path(), &["init"]);
    assert!(
        !second.status.success()
            && String::from_utf8_lossy(&second.stderr).contains("is not overwritten"),
        "{second:?}"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
    let shown = call(root.path(), &["init", "--output", "-"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), text);
}

#[test]
fn init_finds_an_init_script_and_says_what_it_looked_for() {
    let root = host("");
    fs::remove_dir_all(root.path().join("etc/systemd")).unwrap();
    let none = call(root.path(), &["init", "--output", "-"]);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(
        !none.status.success()
            && none.stdout.is_empty()
            && said.contains("gitlab-runsvdir.service")
            && said.contains("/etc/init.d/gitlab*"),
        "{said}"
    );
    fs::create_dir_all(root.path().join("etc/init.d")).unwrap();
    fs::write(root.path().join("etc/init.d/gitlabhq-7.12"), "").unwrap();
    let found = call(root.path(), &["init", "--output", "-"]);
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    for line in [
        "layout = \"custom\"",
        "name = \"gitlabhq-7-12\"",
        "stop = [\"/etc/init.d/gitlabhq-7.12\", \"stop\"]",
        "paths = [\"/home/git/repositories\"]",
    ] {
        assert!(text.contains(line), "{line}: {text} {}", String::from_utf8_lossy(&found.stderr));
    }
}

#[test]
fn install_is_idempotent_updates_and_leaves_nothing_behind() {
    let root = host("[[step]]\nname = \"late\"\nstage = \"finish\"\ncommand = [\"/bin/true\"]\n");
    let first = call(root.path(), &["install"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(String::from_utf8_lossy(&first.stdout).contains("Keep a copy"));
    let password = root.path().join("etc/gitlab-backup/repository.password");
    assert_eq!(password.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read(&password).unwrap();

    let second = call(root.path(), &["install"]);
    assert!(String::from_utf8_lossy(&second.stdout).starts_with("nothing to do"), "{second:?}");
    assert_eq!(fs::read(&password).unwrap(), kept);

    assert!(ours(root.path()).contains(&"gitlab-backup-step-late.service".to_owned()));
    fs::write(root.path().join("etc/gitlab-backup/config.toml"), "").unwrap();
    assert!(call(root.path(), &["install"]).status.success());
    assert!(!ours(root.path()).contains(&"gitlab-backup-step-late.service".to_owned()));

    assert!(call(root.path(), &["uninstall"]).status.success());
    assert!(ours(root.path()).is_empty());
    assert!(
        password.exists() && root.path().join("etc/systemd/system/gitlab-puma.service").exists()
    );
}

#[test]
fn a_file_that_is_not_ours_is_never_touched() {
    let root = host("");
    let foreign = root.path().join("etc/systemd/system/gitlab-backup-run.timer");
    fs::write(&foreign, "# an admin's own\n").unwrap();
    let output = call(root.path(), &["install"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gitlab-backup-run.timer"));
    assert_eq!(ours(root.path()), ["gitlab-backup-run.timer"], "nothing else was written");
    assert!(call(root.path(), &["uninstall"]).status.success());
    assert!(foreign.exists());
}

#[test]
fn a_bad_configuration_is_told_in_full_and_nothing_is_written() {
    let root = host(
        "[gitlab]\nwriter = []\n[postgresql]\nport = \"x\"\n[schedule]\ncalendar = \"every full \
         moon\"\n",
    );
    let output = call(root.path(), &["install"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for expected in [
        "config.toml:2:1: gitlab.writer:",
        "config.toml:4:8: postgresql.port:",
        "config.toml:6:12: schedule.calendar:",
    ] {
        assert!(said.contains(expected), "expected: {expected}\nsaid: {said}");
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(ours(root.path()).is_empty());
}

#[test]
fn a_usage_error_has_its_own_exit_code() {
    assert_eq!(call(Path::new("/nonexistent"), &["instal"]).status.code(), Some(2));
}

/// A host with a repository that has a quick key, [`PASSWORD`].
struct Keys {
    place: TempDir,
}

impl Keys {
    fn new() -> Self {
        let keys = Self { place: memory::directory() };
        let config = format!(
            "[gitlab]\nlayout = \"custom\"\nwriters = [\"a.service\"]\n[files]\npaths = \
             [\"/srv/a\"]\n[repository]\nlocation = \"{}\"\npassword-file = \"{}\"\n",
            keys.path("repository"),
            keys.path("password")
        );
        fs::write(keys.path("config.toml"), config).unwrap();
        fs::write(keys.path("password"), PASSWORD).unwrap();
        quick_repository::create(EngineName::Restic, Path::new(&keys.path("repository")));
        keys
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    /// Runs `gitlab-backup key`.
    fn call(&self, words: &[&str]) -> Output {
        let mut command = Command::cargo_bin("gitlab-backup").unwrap();
        command.args(["--config", &self.path("config.toml"), "key"]).args(words).output().unwrap()
    }

    /// Whether restic opens the repository with `password`.
    fn opens(&self, password: &str) -> bool {
        let mut command = std::process::Command::new("restic");
        command
            .args(["--no-cache", "cat", "config"])
            .env("RESTIC_REPOSITORY", self.path("repository"))
            .env("RESTIC_PASSWORD", password);
        command.output().unwrap().status.success()
    }

    /// The id of the only key that 'key show' marks with `mark`.
    fn id(&self, mark: &str) -> String {
        let shown = String::from_utf8(self.call(&["show"]).stdout).unwrap();
        let mut ids = shown.lines().filter_map(|line| line.strip_prefix(mark));
        let id = ids.next().unwrap().split_whitespace().next().unwrap().to_owned();
        assert!(ids.next().is_none(), "{shown}");
        id
    }
}

#[test]
fn an_added_key_opens_the_repository() {
    let keys = Keys::new();
    let only = keys.call(&["show"]);
    assert!(String::from_utf8_lossy(&only.stdout).contains("the only key"), "{only:?}");
    assert!(keys.call(&["add", "--new-password-file", &keys.path("spare")]).status.success());
    assert_eq!(fs::metadata(keys.path("spare")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(keys.opens(fs::read_to_string(keys.path("spare")).unwrap().trim()));
    assert!(keys.opens(PASSWORD));
}

#[test]
fn a_key_is_added_only_from_a_regular_file_that_nobody_else_can_read() {
    let keys = Keys::new();
    fs::write(keys.path("theirs"), "theirs\n").unwrap();
    fs::set_permissions(keys.path("theirs"), fs::Permissions::from_mode(0o644)).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(keys.path("pipe")).status();
    assert!(pipe.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", keys.path("link")).unwrap();
    for (name, words) in
        [("theirs", "not yours alone"), ("pipe", "not a regular file"), ("link", "")]
    {
        let refused = keys.call(&["add", "--new-password-file", &keys.path(name)]);
        assert!(
            !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(words),
            "{name}: {refused:?}"
        );
    }
    assert!(!keys.opens("theirs"));
}

#[test]
fn a_rotated_key_opens_and_the_old_one_does_not() {
    let keys = Keys::new();
    quick_repository::add_key(Path::new(&keys.path("repository")), "spare");
    let rotated = keys.call(&["rotate"]);
    assert!(rotated.status.success(), "{rotated:?}");
    let new = fs::read_to_string(keys.path("password")).unwrap();
    assert!(new.trim() != PASSWORD && keys.opens(new.trim()));
    assert!(keys.opens("spare") && !keys.opens(PASSWORD));
}

#[test]
fn the_key_in_use_is_not_removed_and_another_is() {
    let keys = Keys::new();
    quick_repository::add_key(Path::new(&keys.path("repository")), "spare");
    assert!(keys.opens("spare"));
    assert!(!keys.call(&["remove", &keys.id("* ")]).status.success(), "it is in use");
    assert!(keys.call(&["remove", &keys.id("  ")]).status.success());
    assert!(!keys.opens("spare") && keys.opens(PASSWORD));
}

/// A command with its standard output where nobody reads, or where nothing can be written.
fn unheard(root: &Path, words: &[&str], out: std::process::Stdio) -> Output {
    let program = assert_cmd::cargo::cargo_bin("gitlab-backup");
    let config = root.join("etc/gitlab-backup/config.toml");
    let mut command = std::process::Command::new(program);
    command
        .arg("--config")
        .arg(config)
        .args(words)
        .stdout(out)
        .stderr(std::process::Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn nothing_dies_of_a_reader_that_has_gone_and_nothing_is_silent_where_it_cannot_be_written() {
    let root = host("[gitlab]\nlayout = \"custom\"\n");
    for words in [&["check"][..], &["generate", "--zabbix-template"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = unheard(root.path(), words, writer.into());
        let said = String::from_utf8_lossy(&closed.stderr).into_owned();
        assert!(
            !said.contains("panicked") && closed.status.code().is_some_and(|code| code != 101),
            "{words:?}: {:?} {said}",
            closed.status
        );
    }
    let full = unheard(
        root.path(),
        &["generate", "--zabbix-template"],
        fs::File::create("/dev/full").unwrap().into(),
    );
    assert!(
        !full.status.success()
            && String::from_utf8_lossy(&full.stderr).contains("cannot write to standard output"),
        "{full:?}"
    );
}

#[test]
fn a_lost_password_is_not_made_anew_where_there_is_a_repository() {
    let root = host("");
    let first = call(root.path(), &["install"]);
    assert!(first.status.success(), "{first:?}");
    let password = root.path().join("etc/gitlab-backup/repository.password");
    fs::remove_file(&password).unwrap();
    // Nothing is in it yet.
    assert!(call(root.path(), &["install"]).status.success());
    fs::remove_file(&password).unwrap();
    let repository = root.path().join("var/backups/gitlab");
    assert!(repository.is_dir(), "{first:?}");
    fs::write(repository.join("config"), "").unwrap();
    let refused = call(root.path(), &["install"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success()
            && said.contains("put your copy of its password back")
            && !password.exists(),
        "{said}"
    );
}

#[test]
fn every_command_has_a_man_page_that_mandoc_reads_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man8");
    let written = Command::cargo_bin("gitlab-backup")
        .unwrap()
        .args(["generate", "--man"])
        .arg(&pages)
        .output()
        .unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    for entry in fs::read_dir(&pages).unwrap() {
        let page = entry.unwrap().path();
        let lint = std::process::Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&page)
            .output()
            .expect("mandoc");
        // The date of a page is that of its text, which nobody writes down.
        let findings = String::from_utf8_lossy(&lint.stdout).into_owned();
        // And its library puts a break beside a space.
        let known = ["missing date", "skipping paragraph macro: br"];
        let findings: Vec<_> = findings
            .lines()
            .filter(|line| !known.iter().any(|known| line.contains(known)))
            .collect();
        assert!(findings.is_empty(), "{findings:#?}");
        // Every option that --help has.
        let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
        let verb = name.split('-').skip(2);
        let help =
            Command::cargo_bin("gitlab-backup").unwrap().args(verb).arg("--help").output().unwrap();
        let text = fs::read_to_string(&page).unwrap().replace("\\-", "-");
        for option in String::from_utf8_lossy(&help.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--"))
        {
            let option = option.split([' ', '=']).next().unwrap();
            assert!(text.contains(&format!("--{option}")), "--{option} is not in {page:?}");
        }
    }
    for page in ["gitlab-backup.8", "gitlab-backup-restore.8", "gitlab-backup-key-rotate.8"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    assert!(
        !pages.join("gitlab-backup-helper.8").exists(),
        "what the units call is no command of an admin's"
    );
    let program = fs::read_to_string(pages.join("gitlab-backup.8")).unwrap();
    for section in [
        "EXIT STATUS",
        "FILES",
        "ENVIRONMENT",
        "EXAMPLES",
        "SEE ALSO",
        "/etc/gitlab\\-backup/config.toml",
    ] {
        assert!(program.contains(section), "{section}: {program}");
    }
}

#[test]
fn the_completions_are_scripts_that_bash_reads() {
    for shell in ["bash", "zsh", "fish"] {
        let printed = Command::cargo_bin("gitlab-backup")
            .unwrap()
            .args(["generate", "--completion", shell])
            .output()
            .unwrap();
        let script = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(
            printed.status.success()
                && script.contains("restore")
                && !script.contains("fssnapshot"),
            "{shell}: {script}"
        );
    }
    let completed = std::process::Command::new("bash")
        .arg("-c")
        .arg(
            "source <(\"$0\" generate --completion bash) && COMP_WORDS=(gitlab-backup res) \
              COMP_CWORD=1 && _gitlab__backup gitlab-backup res gitlab-backup && \
              echo \"${COMPREPLY[@]}\"",
        )
        .arg(assert_cmd::cargo::cargo_bin("gitlab-backup"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "restore", "{completed:?}");
}
