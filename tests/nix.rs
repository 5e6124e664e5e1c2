//! The NixOS module, without NixOS: Debian's Nix evaluates it, with nixpkgs' own lib if
//! `NIXPKGS_LIB` is set and with a stand-in otherwise. The module's build commands run with the
//! program under test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod sizes;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gitlab_backup::config::Config;
use gitlab_backup::config::host::Host;
use serde_json::Value;
use sizes::size;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The evaluation of a host, and the directory that stands in for its store.
struct System {
    root: tempfile::TempDir,
    told: Value,
}

/// Runs a command and returns its stdout; if it fails, panics with its stderr.
fn said(command: &mut Command) -> String {
    let output =
        command.stdin(Stdio::null()).output().expect("tests/prepare installs what this test needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl System {
    /// A host with these settings of services.gitlab-backup; `more` is the rest of its
    /// configuration.
    fn new(settings: &str, more: &str) -> Self {
        let module = format!(
            "{{ services.gitlab-backup = {{ enable = true; settings = {{ {settings} }}; }}; {more} \
             }}"
        );
        Self::of(&module)
    }

    fn of(module: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host.nix");
        std::fs::write(&host, module).unwrap();
        Self::at(&host, root)
    }

    /// The host in this file; what it builds goes below `root`.
    fn at(host: &Path, root: tempfile::TempDir) -> Self {
        let host = Self::evaluated(host, &root, Some("host"));
        Self { told: serde_json::json!({ "host": host }), root }
    }

    /// A host together with the machines of nix/tests, the package, the flake and the options,
    /// which are the slow part of an evaluation.
    fn with_everything() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("host.nix");
        std::fs::write(&host, format!("{{ services.gitlab-backup.enable = true; {GITLAB} }}"))
            .unwrap();
        Self { told: Self::evaluated(&host, &root, None), root }
    }

    /// The result of evaluate.nix for this host: one attribute, or everything.
    fn evaluated(host: &Path, root: &tempfile::TempDir, attribute: Option<&str>) -> Value {
        let package = root.path().join("package");
        std::fs::create_dir_all(package.join("bin")).unwrap();
        std::os::unix::fs::symlink(
            env!("CARGO_BIN_EXE_gitlab-backup"),
            package.join("bin/gitlab-backup"),
        )
        .unwrap();
        let text = said(
            Command::new(here("tests/nix/evaluate"))
                .arg(host)
                .arg(root.path().join("store"))
                .arg(&package)
                .args(attribute),
        );
        serde_json::from_str(&text).unwrap()
    }

    fn host(&self, key: &str) -> &Value {
        &self.told["host"][key]
    }

    /// The messages of the failed assertions.
    fn failed(&self) -> Vec<&str> {
        self.host("failed")
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message.as_str().unwrap())
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("store").join(format!("stand-in-{name}"))
    }

    /// Runs the command that builds the units, as Nix would.
    fn build(&self) -> Output {
        let evaluation = self.root.path().join("evaluation.json");
        std::fs::write(&evaluation, self.told.to_string()).unwrap();
        let mut realise = Command::new(here("tests/nix/realise"));
        let output = realise
            .arg("")
            .stdin(std::fs::File::open(evaluation).unwrap())
            .output()
            .expect("python3 is needed for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let command = String::from_utf8(output.stdout).unwrap();
        let out = command.trim();
        Command::new("bash")
            .args(["-euo", "pipefail", &format!("{out}.sh")])
            .env("out", out)
            .output()
            .unwrap()
    }

    fn units(&self) -> PathBuf {
        let output = self.build();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.path("gitlab-backup-units").join("lib/systemd/system")
    }

    /// The generated configuration, as the program reads it.
    fn config(&self) -> Config {
        Config::load(&self.path("gitlab-backup.toml"), &Host::new(self.root.path())).unwrap()
    }
}

const GITLAB: &str = "services.gitlab.enable = true;";

/// What systemd reports about the program's units in `directory`.
fn complaints(directory: &Path) -> String {
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").env("SYSTEMD_UNIT_PATH", format!("{}:", directory.display()));
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    verify.args(entries.filter(|path| path.is_file()));
    let output = verify.output().expect("systemd-analyze is needed for this test");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    said.lines()
        .filter(|line| line.contains("gitlab-backup"))
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn a_location_is_all_that_must_be_said() {
    let system = System::of(&std::fs::read_to_string(here("tests/nix/hosts/minimal.nix")).unwrap());
    assert!(system.failed().is_empty(), "{:?}", system.failed());
    let directory = system.units();
    let config = system.config();
    let writers: Vec<_> = config.gitlab.writers.iter().map(|unit| unit.as_str()).collect();
    assert_eq!(
        writers,
        ["gitlab.service", "gitlab-sidekiq.service", "gitlab-workhorse.service", "gitaly.service"]
    );
    assert_eq!((config.gitlab.layout.as_str(), config.gitlab.stopped_alone.len()), ("nixos", 1));
    assert_eq!(config.repository.location, "/srv/backup");
    assert_eq!(config.files.configuration, [PathBuf::from("/var/gitlab/state/config")]);
    assert_eq!(config.redis[0].unit.as_ref().unwrap().as_str(), "redis-gitlab.service");
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.host.as_str(), postgresql.databases.unwrap()),
        ("/run/postgresql", vec!["gitlab".to_owned()])
    );
    assert_eq!(postgresql.bin_dir.unwrap(), system.path("postgresql").join("bin"));

    // The program and the configuration are in the store, and the programs that the units need are
    // on their PATH.
    let unit = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let program = system.root.path().join("package/bin/gitlab-backup");
    let source = system.path("gitlab-backup.toml");
    let exec = format!(
        "ExecStart=:\"{}\" \"--config\" \"{}\" \"helper\" \"execute\"",
        program.display(),
        source.display()
    );
    assert!(
        unit("gitlab-backup-run.service").contains(&exec),
        "{}",
        unit("gitlab-backup-run.service")
    );
    let programs = system.host("path").as_array().unwrap();
    assert!(
        programs.iter().any(|package| package.as_str() == system.path("redis").to_str()),
        "{programs:?}"
    );
    // A switch to another system does not touch a run.
    for name in [
        "gitlab-backup-resume.service",
        "gitlab-backup-store.target",
        "gitlab-backup-deadline.timer",
    ] {
        assert!(unit(&format!("{name}.d/nixos.conf")).contains("\nX-OnlyManualStart=true\n"));
    }
    // A unit that receives a secret starts after the unit that provides it. No other unit does:
    // GitLab's return must not wait.
    for (name, wanted) in
        [("gitlab-backup-presync.service", true), ("gitlab-backup-resume.service", false)]
    {
        assert_eq!(
            directory.join(format!("{name}.d/nixos-secrets.conf")).exists(),
            wanted,
            "{name}"
        );
    }
    assert_eq!(complaints(&directory), "");

    // Encrypted credentials may be in the store.
    let more = format!(
        "{GITLAB} services.gitlab-backup.credentials.\"gitlab.repository\" \
         = \"/nix/store/x-gitlab.repository\";"
    );
    let credential =
        System::new("repository.password-credential = \"encrypted:gitlab.repository\";", &more);
    assert!(credential.failed().is_empty(), "{:?}", credential.failed());
    assert_eq!(
        credential.host("etc")["credstore.encrypted/gitlab.repository"],
        "/nix/store/x-gitlab.repository"
    );
    let presync =
        std::fs::read_to_string(credential.units().join("gitlab-backup-presync.service")).unwrap();
    assert!(presync.contains("\nLoadCredentialEncrypted=gitlab.repository\n"), "{presync}");

    assert_eq!(system.host("packages")[0], system.path("gitlab-backup-units").to_str().unwrap());
    assert_eq!(system.host("etc")["gitlab-backup/config.toml"], source.to_str().unwrap());
    assert_eq!(
        system.host("targets")["timers"]["wants"],
        serde_json::json!(["gitlab-backup-run.timer", "gitlab-backup-verify.timer"])
    );
    assert_eq!(
        system.host("targets")["multi-user"]["wants"][0],
        "gitlab-backup-restore-guard.service"
    );
    assert_eq!(
        *system.host("users"),
        serde_json::json!(["gitlab-backup-loader", "gitlab-backup-sandbox"])
    );
    assert!(system.host("warnings")[0].as_str().unwrap().contains("copy-elsewhere"));
}

const EVERYTHING: &str = r#"
services.gitlab = {
  enable = true;
  statePath = "/srv/gitlab state";
  registry.enable = true;
  pages.enable = true;
  pages.settings.pages-root = "/srv/pages";
  databaseHost = "db.example.com";
  databasePasswordFile = "/run/keys/db";
  secrets = { secretFile = "/run/keys/secret"; otpFile = "/run/keys/secret"; dbFile = /nix/store/x-in-the-store; jwsFile = null; };
};
services.dockerRegistry.enableGarbageCollect = true;
services.redis.servers.gitlab = { enable = true; requirePassFile = "/run/keys/redis"; };
services.gitlab.extraConfig.incoming_email.enabled = true;
services.gitlab-backup.acknowledged = [ "copy-elsewhere" "key-elsewhere" ];
"#;

#[test]
fn what_services_gitlab_says_is_taken_over() {
    let settings = r#"
        retention.keep-daily = 7;
        verify.calendar = "Sat 06:00";
        monitoring.alertmanager = { url = "https://alertmanager.example.com"; matchers = [ "instance=gitlab" ]; token-file = "/run/keys/alertmanager"; };
    "#;
    let system = System::new(settings, EVERYTHING);
    assert!(system.failed().is_empty(), "{:?}", system.failed());
    let warnings = system.host("warnings").as_array().unwrap();
    assert!(
        warnings.len() == 1
            && warnings[0].as_str().unwrap().contains("services.gitlab.secrets.dbFile"),
        "{warnings:?}"
    );
    let directory = system.units();
    assert_eq!(complaints(&directory), "");
    let config = system.config();
    let writers: Vec<_> = config.gitlab.writers.iter().map(|unit| unit.as_str()).collect();
    assert_eq!(
        writers,
        [
            "gitlab.service",
            "gitlab-sidekiq.service",
            "gitlab-workhorse.service",
            "gitlab-mailroom.service",
            "gitlab-pages.service",
            "docker-registry.service",
            "docker-registry-garbage-collect.service",
            "docker-registry-garbage-collect.timer",
            "gitaly.service"
        ]
    );
    let state = Path::new("/srv/gitlab state");
    let mut paths: Vec<_> = ["repositories", "uploads", "builds", "shared", "custom_hooks", "home"]
        .map(|name| state.join(name))
        .into();
    let configuration = [state.join("config"), "/run/keys/secret".into(), "/run/keys/db".into()];
    paths.extend(["/var/lib/docker-registry".into(), "/srv/pages".into()]);
    assert_eq!(config.files.paths, [&paths[..], &configuration].concat());
    assert_eq!(config.files.configuration, configuration);
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.host.as_str(), postgresql.user.as_str(), postgresql.os_user.as_str()),
        ("db.example.com", "gitlab", "gitlab-backup")
    );
    assert_eq!(system.host("users")[0], "gitlab-backup");
    let run = std::fs::read_to_string(directory.join("gitlab-backup-redis.service")).unwrap();
    assert!(run.contains("LoadCredential=redis-main.password:/run/keys/redis\n"));
    let timers: Vec<String> =
        serde_json::from_value(system.host("targets")["timers"]["wants"].clone()).unwrap();
    assert_eq!(
        timers,
        ["gitlab-backup-run.timer", "gitlab-backup-verify.timer", "gitlab-backup-unsilence.timer"]
    );
    for timer in timers {
        assert!(directory.join(&timer).is_file(), "{timer}");
    }
}

/// `text` as a Nix string.
fn nix(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[test]
fn settings_of_every_type_come_through_unharmed() {
    let odd = [
        "a b",
        "100 %n %% %",
        "$HOME ${HOME} $$",
        "it's \"quoted\"",
        "back\\slash \\n",
        "ünïcode ✓",
        ";",
        "",
        " ",
        "line\nbreak",
        "#[x]='y'",
        "''${x}''",
    ];
    let file = "/srv/100 % $HOME \"it's\" \\ é; x";
    let list = odd.iter().fold(String::new(), |mut list, text| {
        write!(list, "{} ", nix(text)).unwrap();
        list
    });
    let settings = format!(
        "files.paths = [ {0} ]; files.exclude = [ \"*.tmp\" ]; files.presync = false; \
         postgresql.jobs = 7; gitlab.max-downtime = \"1h 5min\";
         repository.location = {1}; repository.password-file = {0}; redis = [ ];
         step = [ {{ name = \"odd\"; stage = \"finish\"; command = [ \"/bin/true\" {list} ]; \
         description = {2}; }} {{ name = \"off\"; stage = \"store\"; \
         command = [ {0} ]; enable = false; }} ];",
        nix(file),
        nix(&format!("{file}/backup").replace("/srv/", "/mnt/")),
        nix("100 % $x"),
    );
    let system = System::new(&settings, GITLAB);
    let directory = system.units();
    assert_eq!(complaints(&directory), "");
    let config = system.config();
    assert!(config.files.paths.contains(&PathBuf::from(file)), "{:?}", config.files.paths);
    assert_eq!(config.repository.location, format!("{file}/backup").replace("/srv/", "/mnt/"));
    assert_eq!(
        (config.files.presync, config.postgresql.unwrap().jobs, config.redis.len()),
        (false, 7, 1)
    );
    assert_eq!(config.gitlab.max_downtime.to_string(), "3900s");
    assert_eq!(config.steps[0].command[1..], odd);
    assert_eq!(config.steps.len(), 1);
    // The lab tests how systemd reads these lines. Here the strings come from Nix, whose TOML must
    // give the same lines.
    let unit = std::fs::read_to_string(directory.join("gitlab-backup-step-odd.service")).unwrap();
    assert!(
        unit.contains(
            " \"100 %%n %%%% %%\" \"$HOME ${HOME} \
                           $$\" \"it's \\\"quoted\\\"\" \"back\\\\slash \\\\n\" "
        ),
        "{unit}"
    );
    assert!(unit.contains(" \"line\\nbreak\" "), "{unit}");
}

#[test]
fn what_the_program_refuses_fails_the_build() {
    for (settings, said) in [
        (
            "files.paths = [ \"/a\\nExecStart=/bin/evil\" ];",
            "files.paths[7]: '/a\\nExecStart=/bin/evil' has a control character in it",
        ),
        (
            "repository.location = \"/a\\nb\";",
            "repository.location: '/a\\nb' has a control character in it",
        ),
        (
            "step = [ { name = \"x\"; stage = \"store\"; command = [ \"/x\" ]; description \
             = \"a\\nb\"; } ];",
            "step[0].description: has a control",
        ),
        ("schedule.calender = \"daily\";", "schedule.calender: there is no such key"),
        ("schedule.calendar = \"often\";", "schedule.calendar: 'often' is not a calendar event"),
        (
            "redis = [ { name = \"cache\"; url = \"redis://:sesam@h\"; } ];",
            "redis[1].url: has a password in it",
        ),
        // An empty table is not the same as a missing one.
        ("monitoring.zabbix = { };", "monitoring.zabbix.api: is missing"),
        ("gitlab.stop-grace = \"soon\";", "gitlab.stop-grace: 'soon' does not start with a number"),
    ] {
        let output = System::new(settings, GITLAB).build();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{settings}: {stderr}");
    }
}

/// Nix itself refuses values of a wrong type.
#[test]
fn a_value_of_another_type_fails_the_evaluation() {
    let root = tempfile::tempdir().unwrap();
    let host = root.path().join("host.nix");
    for (key, value) in [
        ("postgresql.jobs", "\"two\""),
        ("postgresql.port", "65536"),
        ("retention.keep-daily", "-1"),
        ("files.paths", "[ \"relative\" ]"),
        ("repository.password-file", "\"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-password\""),
        ("repository.password-file", "./password"),
        (
            "repository.environment-file",
            "\"${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-x\"",
        ),
    ] {
        let module = format!(
            "{{ services.gitlab-backup = {{ enable = true; settings.{key} = {value}; }}; {GITLAB} \
             }}"
        );
        std::fs::write(&host, module).unwrap();
        let output = Command::new(here("tests/nix/evaluate")).arg(&host).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(&format!("settings.{key}")),
            "{key}: {stderr}"
        );
    }
}

#[test]
fn what_cannot_work_is_said_in_sentences() {
    for (settings, more, word) in [
        ("", "", "services.gitlab, which is not enabled"),
        (
            "monitoring.webhook.token-file = ./token;",
            GITLAB,
            "settings.monitoring.webhook.token-file.",
        ),
        (
            "",
            "services.gitlab = { enable = true; databaseHost = \"db.example.com\"; };",
            "settings.postgresql.password-file",
        ),
        ("postgresql.host = \"10.0.0.1\";", GITLAB, "settings.postgresql.password-file"),
        (
            "gitlab = { layout = \"custom\"; writers = [ \"x.service\" ]; }; files.paths = [ ];",
            "",
            "files.paths is empty",
        ),
    ] {
        let system = System::new(settings, more);
        let failed = system.failed();
        assert!(
            failed.iter().any(|message| message.contains(word) && message.ends_with('.')),
            "{settings} {more}: {failed:?}"
        );
    }
    for (settings, more) in [
        (
            "postgresql.password-credential = \"pg\";",
            "services.gitlab = { enable = true; databaseHost = \"db.example.com\"; \
             databasePasswordFile = \"/run/keys/db\"; };",
        ),
        ("postgresql = { host = \"10.0.0.1\"; password-credential = \"pg\"; };", GITLAB),
        (
            "monitoring.webhook = { url = \"https://h\"; ca-file = \"/nix/store/x-certificate\"; \
             };",
            GITLAB,
        ),
        (
            "gitlab = { layout = \"custom\"; writers = [ \"gitlab.service\" ]; }; files.paths = \
             [ \"/srv/git\" ];",
            "",
        ),
    ] {
        let system = System::new(settings, more);
        assert!(system.failed().is_empty(), "{settings}");
        system.units();
    }
}

#[test]
fn the_machines_of_the_tests_the_package_and_the_flake_evaluate() {
    let system = System::with_everything();
    let machines = system.told["machines"].as_object().unwrap();
    let names: Vec<_> = machines.keys().collect();
    assert_eq!(names, ["gitlab", "moved", "overrides", "stand-in", "switch"]);
    for (name, machine) in machines {
        assert_eq!(machine["host"]["failed"].as_array().unwrap().len(), 0, "{machine}");
        assert!(machine["testScript"].as_str().unwrap().contains("gitlab-backup.target"), "{name}");
    }
    let package = &system.told["package"];
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(package["tests"], serde_json::json!(names));
    // With stand-ins for the functions of installShellFiles: every file that they receive exists.
    let place = tempfile::tempdir().unwrap();
    let played = "installManPage() { ls -- \"$@\"; }; installShellCompletion() { for word; do case \
                  $word in /*) grep -q restore \"$word\" || exit 1;; esac; done; }";
    let script =
        format!("set -euo pipefail; {played}\n{}", package["postInstall"].as_str().unwrap());
    let mut install = Command::new("bash");
    let installed = said(
        install
            .arg("-c")
            .arg(script)
            .current_dir(&place)
            .env("out", system.root.path().join("package")),
    );
    assert!(
        installed.contains("man/gitlab-backup.8")
            && installed.contains("man/gitlab-backup-restore.8"),
        "{installed}"
    );
    // The wrapper lets units and admins find the programs that gitlab-backup calls, and
    // gitlab-backup find itself.
    let wrapped = package["wrapped"].as_str().unwrap();
    assert!(
        wrapped.contains("--argv0 $out/bin/gitlab-backup") && wrapped.contains("--suffix PATH : "),
        "{wrapped}"
    );
    let package = system.root.path().join("package");
    let expected = serde_json::json!({
        "outputs": ["checks", "devShells", "formatter", "legacyPackages", "nixosModules", "overlays", "packages"],
        "module": true, "overlay": package, "package": package, "checks": ["moved", "overrides", "package", "stand-in", "switch"],
        "slow": "gitlab-backup-gitlab", "formatter": system.path("nixfmt-tree"), "shells": ["default"],
    });
    assert_eq!(system.told["flake"], expected);
}

/// Each host of tests/nix/hosts evaluates to the JSON file beside it, with NIXPKGS_LIB also by
/// nixpkgs' own lib.
#[test]
fn every_host_gives_what_the_file_beside_it_says() {
    let found: Value =
        serde_json::from_str(&said(&mut Command::new(here("tests/nix/evaluate-hosts")))).unwrap();
    let hosts = found.as_object().unwrap();
    assert!(hosts.len() >= 40, "{}", hosts.len());
    let mut unlike = Vec::new();
    for (name, found) in hosts {
        let path = here(&format!("tests/nix/hosts/{name}.json"));
        if std::env::var_os("UPDATE_HOSTS").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(found).unwrap() + "\n").unwrap();
        }
        let wanted: Option<Value> =
            std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
        if wanted.as_ref() != Some(found) {
            unlike.push(format!("{name}: {found:#}"));
        }
    }
    assert!(
        unlike.is_empty(),
        "UPDATE_HOSTS=1 cargo test --test nix writes what these give:\n{}",
        unlike.join("\n")
    );
}

/// The configuration that a host derives is valid for the program, which generates its units.
#[test]
fn what_every_host_builds_builds() {
    let mut hosts: Vec<PathBuf> = std::fs::read_dir(here("tests/nix/hosts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "nix"))
        // The program of another platform does not run here.
        .filter(|path| !path.ends_with("cross.nix"))
        .collect();
    hosts.sort();
    let hosts: Vec<PathBuf> = hosts.into_iter().step_by(size(12, 1)).collect();
    let build_all = |hosts: &[PathBuf]| -> usize {
        let built = hosts.iter().filter(|path| {
            let system = System::at(path, tempfile::tempdir().unwrap());
            let builds =
                system.failed().is_empty() && !system.host("build").as_array().unwrap().is_empty();
            builds && system.units().exists()
        });
        built.count()
    };
    // By far the slowest test: use two cores.
    let (first, second) = hosts.split_at(hosts.len() / 2);
    let built = std::thread::scope(|scope| {
        let first = scope.spawn(|| build_all(first));
        build_all(second) + first.join().unwrap()
    });
    assert!(built >= size(3, 40), "{built}");
}

#[test]
fn the_page_of_the_options_is_that_of_the_module() {
    let system = System::with_everything();
    let page = system.told["options"].as_str().unwrap();
    let path = here("nix/options.md");
    if std::env::var_os("UPDATE_OPTIONS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap_or_default() == page,
        "nix/options.md is not that of the module: UPDATE_OPTIONS=1 cargo test --test nix"
    );
}

/// Typed options of the module have the names of the program's keys. Keys without an option are
/// freeform.
#[test]
fn every_option_is_a_key_of_the_program() {
    let system = System::with_everything();
    let page = system.told["options"].as_str().unwrap();
    let keys = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `settings.")?.split_once('`'))
        .map(|(key, _)| key);
    let mut count = 0;
    for key in keys.filter(|key| key.contains('.')) {
        // No key takes a date, so this is always refused, but never because of the key's name.
        let (table, name) = key.rsplit_once('.').unwrap();
        let text = match table {
            "redis" | "step" | "files.path" => format!("[[{table}]]\n{name} = 1979-05-27"),
            _ => format!("[{table}]\n{name} = 1979-05-27"),
        };
        let error = Config::parse(&text, Path::new("/x.toml"), &Host::new("/nonexistent"))
            .unwrap_err()
            .to_string();
        assert!(!error.contains("there is no such key"), "{key}: {error}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

fn nix_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            nix_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "nix") {
            found.push(path);
        }
    }
}

/// Formatted by nixfmt, like nixpkgs. `UPDATE_NIX=1` formats the files.
#[test]
fn every_nix_file_parses_and_is_in_the_form_of_nixfmt() {
    let mut files = vec![here("flake.nix")];
    nix_files(&here("nix"), &mut files);
    nix_files(&here("tests/nix"), &mut files);
    assert!(files.len() > 10);
    said(
        Command::new("nix-instantiate")
            .args(["--store", "dummy://", "--parse"])
            .args(&files)
            .env("NIX_STATE_DIR", std::env::temp_dir()),
    );
    let update = std::env::var_os("UPDATE_NIX").is_some();
    let unlike = |path: &&PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let formatted = nixfmt_rs::format(&text).unwrap();
        if update {
            std::fs::write(path, &formatted).unwrap();
        }
        !update && text != formatted
    };
    let unlike: Vec<&PathBuf> = files.iter().filter(unlike).collect();
    assert!(unlike.is_empty(), "UPDATE_NIX=1 cargo test --test nix writes these anew: {unlike:?}");
    assert_ne!(nixfmt_rs::format("{a=1;}").unwrap(), "{a=1;}");
}
