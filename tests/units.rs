//! The rendered units: equal to those in `systemd/`, accepted by systemd, pure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::path::Path;
use std::process::Command;

use clap::Parser;
use gitlab_backup::cli::Cli;
use gitlab_backup::config::Config;
use gitlab_backup::config::host::Host;
use gitlab_backup::units::graph::{Format, graph};
use gitlab_backup::units::{UnitFile, generate};

fn units(text: &str, program: &Path) -> Vec<UnitFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/source-host");
    let config =
        Config::parse(text, Path::new("/etc/gitlab-backup/config.toml"), &Host::new(root)).unwrap();
    generate(&config, program).unwrap()
}

/// `UPDATE_UNITS=1 cargo test --release --test units` rewrites them.
#[test]
fn the_units_in_the_repository_are_those_of_the_default_configuration() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let units = units("", Path::new("/usr/local/bin/gitlab-backup"));
    if std::env::var_os("UPDATE_UNITS").is_some() {
        for unit in &units {
            std::fs::write(directory.join(&unit.name), &unit.content).unwrap();
        }
    }
    for unit in &units {
        let kept = std::fs::read_to_string(directory.join(&unit.name)).unwrap_or_default();
        assert_eq!(
            kept, unit.content,
            "systemd/{} is not what generate prints: UPDATE_UNITS=1",
            unit.name
        );
    }
    let kept = std::fs::read_dir(&directory).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("gitlab-backup") && !name.ends_with(".conf")
    });
    assert_eq!(kept.count(), units.len(), "systemd/ holds units that generate does not print");
}

/// The words after the program in each `Exec…=` line of a unit that runs this program.
fn helpers(unit: &UnitFile, program: &str) -> Vec<Vec<String>> {
    let lines = unit.content.lines().filter_map(|line| {
        let (key, command) = line.split_once('=')?;
        key.starts_with("Exec").then(|| command.trim_start_matches([':', '+', '-', '!']))
    });
    lines
        .map(|command| command.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .filter(|words| words.first().is_some_and(|first| first == program))
        .collect()
}

/// A unit whose helper does not exist would only fail on a host.
#[test]
fn every_helper_of_a_unit_is_one_of_the_program() {
    let program = "/usr/local/bin/gitlab-backup";
    let mut count = 0;
    for text in ["", EVERYTHING] {
        for unit in units(text, Path::new(program)) {
            for words in helpers(&unit, program) {
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{}: {words:?}: {}", unit.name, parsed.unwrap_err());
                count += 1;
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
}

#[test]
fn the_same_configuration_gives_the_same_bytes() {
    let program = Path::new("/usr/local/bin/gitlab-backup");
    assert_eq!(units("", program), units("", program));
}

/// Every unit is drawn once, and every arrow has two ends.
#[test]
fn the_graph_has_every_unit_and_every_tie() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/source-host");
    let config =
        Config::parse(EVERYTHING, Path::new("/etc/gitlab-backup/config.toml"), &Host::new(root))
            .unwrap();
    let program = Path::new("/usr/local/bin/gitlab-backup");
    let mermaid = graph(&config, program, Format::Mermaid).unwrap();
    let dot = graph(&config, program, Format::Dot).unwrap();
    let id = |name: &str| {
        let line = mermaid
            .lines()
            .filter(|line| line.contains(&format!("[\"{name}\"]")))
            .collect::<Vec<_>>();
        assert_eq!(line.len(), 1, "{name}: {line:?}");
        line[0].trim().split('[').next().unwrap().to_owned()
    };
    for unit in generate(&config, program).unwrap() {
        let from = id(&unit.name);
        assert_eq!(dot.matches(&format!("[label=\"{}\"]", unit.name)).count(), 1, "{}", unit.name);
        for line in unit.content.lines() {
            let Some((directive, names)) = line.split_once('=') else { continue };
            if !["Requires", "BindsTo", "Conflicts", "Wants", "After"].contains(&directive) {
                continue;
            }
            for name in names.split_whitespace().filter(|name| *name != "shutdown.target") {
                let to = id(name);
                let arrow = |line: &&str| {
                    line.starts_with(&format!("  {from} ")) && line.ends_with(&format!(" {to}"))
                };
                assert_eq!(mermaid.lines().filter(arrow).count(), 1, "{} {line}", unit.name);
                assert_eq!(
                    dot.matches(&format!("  {from} -> {to} [")).count(),
                    1,
                    "{} {line}",
                    unit.name
                );
            }
        }
    }
    let cluster = |title: &str| {
        let from = mermaid.find(&format!("[\"{title}\"]")).unwrap();
        &mermaid[from..from + mermaid[from..].find("  end\n").unwrap()]
    };
    for unit in ["pause.service", "window.service", "deadline.timer", "resume.service"] {
        assert!(cluster("capture").contains(unit), "{unit}: {}", cluster("capture"));
    }
    assert!(cluster("independent of runs").contains("gitlab-backup-verify.service"));
    let conflict = format!(
        "  {} --x|stops| {}",
        id("gitlab-backup-window.service"),
        id("gitlab-puma.service")
    );
    assert!(mermaid.contains(&conflict), "{mermaid}");
}

const EVERYTHING: &str = r#"
[postgresql]
host = "db.example.com"
password-file = "/etc/gitlab-backup/100 % pg.password"
[[redis]]
name = "main"
url = "rediss://cache.example.com"
password-file = "/etc/gitlab-backup/redis.password"
[monitoring.zabbix]
api = "https://zabbix.example.com/api_jsonrpc.php"
token-file = "/etc/gitlab-backup/100 % zabbix.token"
hosts = ["gitlab.example.com"]
trapper = ["zabbix.example.com"]
[monitoring.healthchecks]
url-credential = "healthchecks"
token-credential = "encrypted:healthchecks.token"
[monitoring.prometheus]
textfile = "/var/lib/prometheus/100 % node-exporter/gitlab.prom"
[[step]]
name = "early"
stage = "prepare"
command = ["/bin/true", "%n $HOME ; \" \\ \n é"]
user = "daemon"
[[step]]
name = "down"
stage = "window"
command = ["/bin/true"]
[[step]]
name = "stored"
stage = "store"
command = ["/bin/true", ";"]
[[step]]
name = "late"
description = "100 % \\"
stage = "finish"
command = ["/bin/true"]
"#;

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    for text in ["", EVERYTHING, PROXIES] {
        let directory = tempfile::tempdir().unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").env("SYSTEMD_UNIT_PATH", format!("{}:", directory.path().display()));
        for unit in units(text, Path::new("/bin/true")) {
            let path = directory.path().join(&unit.name);
            std::fs::write(&path, &unit.content).unwrap();
            verify.arg(path);
        }
        let output = verify.output().expect("systemd-analyze is needed for this test");
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        // Ignore what systemd reports about other units of the host.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("gitlab-backup")).collect();
        assert!(ours.is_empty(), "{}", ours.join("\n"));
    }
}

#[test]
fn secrets_reach_the_units_that_use_them_as_credentials() {
    let units = units(EVERYTHING, Path::new("/usr/local/bin/gitlab-backup"));
    let with = |line: &str| {
        units
            .iter()
            .filter(|unit| unit.content.lines().any(|l| l == line))
            .map(|unit| unit.name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        with("LoadCredential=zabbix.token:/etc/gitlab-backup/100 %% zabbix.token"),
        [
            "gitlab-backup-silence.service",
            "gitlab-backup-silenced.service",
            "gitlab-backup-unsilence.service"
        ]
    );
    for line in [
        "LoadCredential=healthchecks.url:healthchecks",
        "LoadCredentialEncrypted=healthchecks.token",
    ] {
        assert_eq!(
            with(line),
            ["gitlab-backup-report-start.service", "gitlab-backup-report.service"],
            "{line}"
        );
    }
}

#[test]
fn a_directory_of_this_host_is_written_whatever_restic_calls_it() {
    let repository = |location: &str| {
        let text = format!("[repository]\nengine = \"restic\"\nlocation = \"{location}\"\n");
        units(&text, Path::new("/usr/local/bin/gitlab-backup"))
    };
    let same = repository("/srv/backup");
    for unit in repository("local:/srv/backup") {
        let other = same.iter().find(|other| other.name == unit.name).unwrap();
        assert_eq!(unit.content.replace("local:", ""), other.content, "{}", unit.name);
    }
}

#[test]
fn the_monitoring_is_silent_during_a_backup_and_during_a_restore() {
    let text = "[monitoring.zabbix]\ntrapper = [\"z\"]\ntrapper-host = \"g\"";
    for (text, silent) in [(text, true), ("", false)] {
        for name in ["gitlab-backup-run.service", "gitlab-backup-restore-run.service"] {
            let units = units(text, Path::new("/bin/true"));
            let unit = units.iter().find(|unit| unit.name == name).unwrap();
            for line in
                ["Wants=gitlab-backup-silence.service", "After=gitlab-backup-silence.service"]
            {
                assert_eq!(unit.content.contains(line), silent, "{name}: {line}");
            }
        }
    }
}

#[test]
fn what_a_step_is_denied_is_written_down() {
    // These two units mount snapshots, which other units must see.
    let everywhere = ["fsplan", "fssnapshot"].map(|name| format!("gitlab-backup-{name}.service"));
    let units = [
        units("", Path::new("/bin/true")),
        units(
            "[monitoring.zabbix]\ntrapper = [\"z\"]\ntrapper-host = \"g\"",
            Path::new("/bin/true"),
        ),
    ]
    .concat();
    for unit in units.iter().filter(|unit| unit.name.ends_with(".service")) {
        for line in [
            "NoNewPrivileges=yes",
            "UMask=0077",
            // A gate starts no process; its stop is what takes time.
            if unit.content.contains("ExecStart=") {
                "TimeoutStartSec="
            } else {
                "TimeoutStopSec="
            },
            "CapabilityBoundingSet=",
            "SystemCallFilter=",
        ] {
            assert!(unit.content.contains(line), "{} has no {line}", unit.name);
        }
        assert_eq!(
            unit.content.contains("ProtectSystem=strict"),
            !everywhere.contains(&unit.name),
            "{}",
            unit.name
        );
    }
}

#[test]
fn what_is_frozen_is_not_stopped() {
    for (text, frozen) in [("[gitlab]\nquiesce = \"freeze\"", true), ("", false)] {
        let units = units(text, Path::new("/bin/true"));
        let content =
            |name: &str| units.iter().find(|unit| unit.name == name).unwrap().content.clone();
        let window = content("gitlab-backup-window.service");
        let stops = |content: &str| {
            content
                .lines()
                .any(|line| line.starts_with("Conflicts=") && line.contains(" gitlab.target "))
        };
        assert_eq!(stops(&window), !frozen);
        assert_eq!(window.contains("thaw"), frozen);
        // A restore always stops GitLab.
        assert!(stops(&content("gitlab-backup-restore-window.service")));
        assert_eq!(units.iter().any(|unit| unit.name == "gitlab-backup-drain.service"), !frozen);
        assert!(units.iter().any(|unit| unit.name == "gitlab-backup-restore-drain.service"));
    }
}

#[test]
fn only_what_works_without_users_is_stopped_by_a_hold() {
    let units = units("[gitlab]\nquiesce = \"hold\"", Path::new("/bin/true"));
    let content = |name: &str| units.iter().find(|unit| unit.name == name).unwrap().content.clone();
    let hold = content("gitlab-backup-hold.service");
    assert!(
        hold.contains("\nConflicts=gitlab-sidekiq.service gitlab-mailroom.service\n"),
        "{hold}"
    );
    assert!(hold.contains("\nRuntimeMaxSec=10s\n") && hold.contains("\nTimeoutStartSec=68s\n"));
    assert!(
        content("gitlab-backup-capture-held.target").contains("BindsTo=gitlab-backup-hold.service")
    );
    for step in ["pgsnapshot", "redis", "fssnapshot", "files-live"] {
        let step = content(&format!("gitlab-backup-{step}.service"));
        assert!(step.contains("gitlab-backup-window.service gitlab-backup-hold.service"), "{step}");
    }
    // A run that cannot hold GitLab stops it in phases.
    assert!(content("gitlab-backup-window.service").contains("gitlab-backup-drain.service"));
}

#[test]
fn what_stays_up_is_not_stopped_and_neither_is_what_would_take_it_along() {
    let units =
        units("[gitlab]\nstays-up = [\"gitlab-workhorse.service\"]", Path::new("/bin/true"));
    let window =
        &units.iter().find(|unit| unit.name == "gitlab-backup-window.service").unwrap().content;
    let conflicts = window.lines().find(|line| line.starts_with("Conflicts=")).unwrap();
    assert!(
        conflicts.contains("gitlab-puma.service")
            && !conflicts.contains("workhorse")
            && !conflicts.contains(".target"),
        "{conflicts}"
    );
}

const PROXIES: &str = r#"
[[gitlab.proxy]]
name = "base"
start = ["/bin/true", "%n $HOME ; \" \\ \n é"]
stop = ["/bin/false"]
status = ["/bin/true"]
[[gitlab.proxy]]
name = "web"
start = ["/bin/true"]
stop = ["/bin/true"]
status = ["/bin/true"]
timeout = "10s"
after = ["base"]
[[gitlab.proxy]]
name = "cache"
start = ["/bin/true"]
stop = ["/bin/true"]
status = ["/bin/true"]
[[redis]]
url = "redis://127.0.0.1"
unit = "gitlab-backup-proxy-cache.service"
"#;

#[test]
fn a_proxy_is_a_writer_like_any_unit_but_for_boot_and_shutdown() {
    let all = units(PROXIES, Path::new("/usr/local/bin/gitlab-backup"));
    let content = |name: &str| all.iter().find(|unit| unit.name == name).unwrap().content.clone();
    for window in ["gitlab-backup-window.service", "gitlab-backup-restore-window.service"] {
        for line in ["Conflicts=", "After="] {
            let content = content(window);
            let line = content.lines().find(|other| other.starts_with(line)).unwrap();
            assert!(
                line.contains("gitlab-backup-proxy-base.service gitlab-backup-proxy-web.service"),
                "{line}"
            );
            assert!(
                !line.contains("cache"),
                "a server that a restore starts anew is not stopped: {line}"
            );
        }
    }
    let web = content("gitlab-backup-proxy-web.service");
    for line in [
        "DefaultDependencies=no",
        "After=gitlab-backup-proxy-base.service",
        "RemainAfterExit=yes",
        "KillMode=process",
        "TimeoutStopSec=40s",
    ] {
        assert!(web.lines().any(|other| other == line), "{line}: {web}");
    }
    assert!(
        !web.contains("[Install]") && !web.contains("UMask="),
        "what it starts would inherit it: {web}"
    );
    // The proxies' status is checked at the beginning of a run, and again after everything is
    // captured.
    assert!(
        content("gitlab-backup-prepare.target").contains("Requires=gitlab-backup-proxies.service ")
    );
    let down = content("gitlab-backup-proxies-down.service");
    assert!(
        down.lines()
            .any(|line| line.starts_with("After=")
                && line.contains("gitlab-backup-files-live.service")),
        "{down}"
    );
    let switch = content("gitlab-backup-restore-switch.service");
    assert!(
        switch.lines().any(|line| line.starts_with("Requires=")
            && line.contains("gitlab-backup-restore-proxies-down.service")),
        "{switch}"
    );
    assert!(!units("", Path::new("/bin/true")).iter().any(|unit| unit.name.contains("prox")));
}

#[test]
fn clones_are_made_only_where_they_may_be() {
    for (text, strict) in [
        ("[files]\nsnapshot = \"none\"", true),
        ("[repository]\nengine = \"restic\"", true),
        ("", false),
    ] {
        let units = units(text, Path::new("/bin/true"));
        let unit =
            units.iter().find(|unit| unit.name == "gitlab-backup-files-live.service").unwrap();
        assert_eq!(!unit.content.contains("\"-/home\""), strict, "{text}");
    }
}

/// The lines of the unit `name` that begin with one of `words`.
fn lines<'a>(units: &'a [UnitFile], name: &str, words: &[&str]) -> Vec<&'a str> {
    let unit =
        units.iter().find(|unit| unit.name == format!("gitlab-backup-{name}.service")).unwrap();
    unit.content.lines().filter(|line| words.iter().any(|word| line.starts_with(word))).collect()
}

#[test]
fn each_restore_unit_has_the_rights_of_its_work() {
    let sockets =
        "[postgresql]\nhost = \"/run/postgresql\"\n[[redis]]\nurl = \"unix:///run/redis.sock\"\n";
    let by_socket = units(sockets, Path::new("/bin/true"));
    let by_address = units(
        "[postgresql]\nhost = \"db\"\n[[redis]]\nurl = \"redis://r\"\n",
        Path::new("/bin/true"),
    );
    let bus = ["preflight", "undo", "staging", "switch"];
    for name in ["preflight", "undo", "staging", "dumps", "files", "switch", "finish", "postgresql"]
    {
        let name = format!("restore-{name}");
        let no_bus = lines(&by_socket, &name, &["InaccessiblePaths="]);
        assert_eq!(
            no_bus.is_empty(),
            bus.iter().any(|with| name.ends_with(with)),
            "{name}: {no_bus:?}"
        );
        assert_eq!(
            lines(&by_socket, &name, &["PrivateNetwork="]),
            ["PrivateNetwork=yes"],
            "{name}"
        );
        let alone = name.ends_with("dumps") || name.ends_with("files");
        assert_eq!(!lines(&by_address, &name, &["PrivateNetwork="]).is_empty(), alone, "{name}");
    }
    // Only units that switch to another account have CAP_SETUID.
    let become_another =
        |name: &str| lines(&by_socket, name, &["CapabilityBoundingSet="])[0].contains("CAP_SETUID");
    assert!(
        ["restore-files", "restore-dumps", "files", "presync", "files-live"]
            .iter()
            .all(|name| !become_another(name))
    );
    assert!(["restore-switch", "redis"].iter().all(|name| become_another(name)));
    assert_eq!(
        lines(&by_socket, "restore-dumps", &["ReadWritePaths="]),
        ["ReadWritePaths=\"-/run/gitlab-backup\" \"-/var/lib/gitlab-backup\""]
    );
    assert_eq!(
        lines(&by_socket, "restore-files", &["ReadWritePaths="]),
        [
            "ReadWritePaths=\"-/data\" \"-/home\" \"-/opt\" \"-/run/gitlab-backup\" \"-/srv\" \"-/var\""
        ]
    );
}

/// Only hosts with a volume that supports snapshots need CAP_SYS_ADMIN.
#[test]
fn without_volumes_no_unit_may_mount() {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        std::fs::canonicalize("tests/fixtures/source-host/etc").unwrap(),
        root.path().join("etc"),
    )
    .unwrap();
    std::os::unix::fs::symlink(
        std::fs::canonicalize("tests/fixtures/source-host/home").unwrap(),
        root.path().join("home"),
    )
    .unwrap();
    std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
    let line = |target: &str, kind: &str, source: &str| {
        format!("24 1 8:1 / {target} rw,relatime shared:1 - {kind} {source} rw\n")
    };
    for (mounts, text, may) in [
        (line("/", "ext4", "/dev/sda1"), "", false),
        (line("/", "ext4", "/dev/sda1") + &line("/home", "xfs", "/dev/sdb1"), "", false),
        (line("/", "ext4", "/dev/sda1") + &line("/home", "btrfs", "/dev/sdb1"), "", true),
        (line("/", "ext4", "/dev/mapper/vg-root"), "", true),
        (line("/", "ext4", "/dev/vg/root"), "", true),
        (line("/", "zfs", "rpool/root"), "", true),
        (line("/", "btrfs", "/dev/sda1"), "[files]\nsnapshot = \"none\"", false),
        (line("/", "ext4", "/dev/sda1"), "[files]\nsnapshot = \"lvm\"", true),
        (String::new(), "", true),
    ] {
        std::fs::write(root.path().join("proc/self/mountinfo"), &mounts).unwrap();
        let config = Config::parse(
            text,
            Path::new("/etc/gitlab-backup/config.toml"),
            &Host::new(root.path()),
        )
        .unwrap();
        let units = gitlab_backup::units::generate(&config, Path::new("/bin/true")).unwrap();
        for name in ["fsplan", "fssnapshot"] {
            let capabilities = lines(&units, name, &["CapabilityBoundingSet="]);
            assert_eq!(capabilities[0].contains("CAP_SYS_ADMIN"), may, "{name}, {text}: {mounts}");
            assert_eq!(
                lines(&units, name, &["ProtectSystem=strict"]).is_empty(),
                may,
                "{name}, {text}: {mounts}"
            );
        }
    }
}

#[test]
fn what_is_stopped_alone_is_stopped_by_the_pause_and_not_by_a_conflict() {
    let alone = "files.paths = [\"/srv/git\"]\n[gitlab]\nlayout = \"nixos\"\nwriters = \
                 [\"gitlab.service\", \"gitaly.service\"]";
    for (text, stops, waits) in [
        (alone.to_owned(), true, true),
        (format!("{alone}\nquiesce = \"freeze\""), false, false),
        (String::new(), false, false),
    ] {
        let nixos = !text.is_empty();
        let units = units(&text, Path::new("/bin/true"));
        let content =
            |name: &str| units.iter().find(|unit| unit.name == name).unwrap().content.clone();
        let begins = |content: &str| content.contains(" \"pause\" \"--stop\" \"gitlab.service\"\n");
        let window = content("gitlab-backup-window.service");
        assert_eq!(begins(&content("gitlab-backup-pause.service")), stops, "{text}");
        assert_eq!(window.contains("TimeoutStartSec=infinity"), waits, "{text}");
        assert_eq!(
            window.contains(
                "Conflicts=gitlab-backup-drain.service gitaly.service\n\
                 After=gitlab-backup-drain.service gitaly.service\n"
            ),
            stops,
            "{text}"
        );
        // A restore always stops them, even if a backup freezes GitLab.
        assert_eq!(begins(&content("gitlab-backup-restore-pause.service")), nixos, "{text}");
        assert_eq!(
            content("gitlab-backup-restore-window.service")
                .contains("Conflicts=gitlab-backup-restore-drain.service gitaly.service\n"),
            nixos,
            "{text}"
        );
    }
}
