//! The configuration from the outside: files in, a `Config` or exact error text out; the host is a
//! tree in a temporary directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::path::{Path, PathBuf};

use gitlab_backup::config::host::Host;
use gitlab_backup::config::{
    Config, EngineName, Fallback, Phase, ReadinessUrl, RedisAddress, Stage,
};
use gitlab_backup::gitlab::drain;
use gitlab_backup::monitoring::{
    HookUrl, Monitoring, OnError, ReportConfig, SilenceConfig, TrapperTls,
};
use gitlab_backup::values::SecretSource;

const SOURCE: &str = "/etc/gitlab-backup/config.toml";

/// A tree with these files, `PATH` or `PATH=CONTENT`.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let (path, content) = file.split_once('=').unwrap_or((file, ""));
        let path = root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    root
}

fn source_tree() -> tempfile::TempDir {
    tree(&[
        "/etc/systemd/system/gitlab-puma.service",
        "/usr/lib/systemd/system/gitlab-sidekiq.service",
        "/lib/systemd/system/gitlab.target",
        "/lib/systemd/system/gitlab-puma.socket",
        "/lib/systemd/system/gitlab-nightly.timer=[Timer]\nOnCalendar=daily\nUnit = \
         gitlab-sidekiq.service\n",
        "/lib/systemd/system/gitlab-unrelated.timer=[Timer]\nUnit=gitlab-report.service\n",
        "/lib/systemd/system/other.timer=[Timer]\nUnit=gitlab-puma.service\n",
        "/lib/systemd/system/nginx.service",
        "/run/redis/redis-server.sock",
        "/home/git/repositories/a.git/HEAD",
        "/home/git/gitlab/config/secrets.yml",
    ])
}

fn parse(text: &str, root: &Path) -> Result<Config, String> {
    Config::parse(text, Path::new(SOURCE), &Host::new(root)).map_err(|error| error.to_string())
}

fn writers(config: &Config) -> Vec<&str> {
    config.gitlab.writers.iter().map(|unit| unit.as_str()).collect()
}

#[test]
fn an_empty_file_is_enough_for_an_installation_from_source() {
    let root = source_tree();
    let config = parse("", root.path()).unwrap();
    assert_eq!(config.source, Path::new(SOURCE));
    assert_eq!(config.gitlab.layout, "source");
    assert_eq!(
        writers(&config),
        [
            "gitlab.target",
            "gitlab-puma.service",
            "gitlab-sidekiq.service",
            "gitlab-nightly.timer",
            "gitlab-puma.socket"
        ]
    );
    assert_eq!(config.gitlab.max_downtime.to_string(), "1800s");
    assert_eq!(config.gitlab.stop_grace.to_string(), "10s");
    assert_eq!(
        (config.schedule.calendar.as_str(), config.schedule.randomized_delay.to_string().as_str()),
        ("*-*-* 02:30:00", "600s")
    );
    let postgresql = config.postgresql.unwrap();
    assert_eq!((postgresql.host.as_str(), postgresql.port), ("/var/run/postgresql", 5432));
    assert_eq!(
        (postgresql.user.as_str(), postgresql.os_user.as_str(), postgresql.databases),
        ("postgres", "postgres", None)
    );
    assert_eq!(config.redis.len(), 1);
    assert_eq!(
        (config.redis[0].name.as_str(), &config.redis[0].address),
        ("main", &RedisAddress::Unix("/run/redis/redis-server.sock".into()))
    );
    assert_eq!(
        config.files.paths,
        [PathBuf::from("/home/git/repositories"), "/home/git/gitlab/config".into()]
    );
    assert!(config.files.presync && config.files.command.is_none());
    assert_eq!(
        (config.repository.engine, config.repository.location.as_str()),
        (EngineName::Builtin, "/var/backups/gitlab")
    );
    assert_eq!(
        config.repository.password,
        SecretSource::File("/etc/gitlab-backup/repository.password".into())
    );
    assert!(
        config.verify.calendar.is_none()
            && config.verify.drill
            && !config.verify.read_data
            && !config.verify.all_repositories
    );
    assert!(config.steps.is_empty());
    assert!(config.monitoring.silences.is_empty() && config.monitoring.reports.is_empty());
    assert_eq!(
        (
            config.monitoring.on_error,
            config.monitoring.grace.to_string(),
            config.monitoring.wait.to_string()
        ),
        (OnError::Warn, "300s".into(), "150s".into())
    );
}

/// A NixOS host: its unit files are links into the store.
fn nixos_tree() -> tempfile::TempDir {
    let root = tree(&[
        "/nix/store/1-unit-gitlab.service/gitlab.service",
        "/nix/store/2-unit-gitaly.service/gitaly.service=[Service]\nTimeoutSec=infinity\nWorkingDirectory=/srv/state/home\n",
        "/nix/store/3-unit-gitlab-config.service/gitlab-config.service",
        "/nix/store/4-unit-gitlab-sidekiq.service/gitlab-sidekiq.service",
        "/nix/store/5-unit-docker-registry-garbage-collect.timer/docker-registry-garbage-collect.timer",
        "/nix/store/6-unit-docker-registry-garbage-collect.service/docker-registry-garbage-collect.service",
        "/nix/store/7-unit-gitlab.target/gitlab.target",
        "/nix/store/8-unit-gitlab-db-config.service/gitlab-db-config.service",
        "/nix/store/9-unit-gitlab-nightly.timer/gitlab-nightly.timer=[Timer]\nUnit=gitlab-sidekiq.service\n",
        // GitLab's own backup, which would start GitLab.
        "/nix/store/10-unit-gitlab-backup.timer/gitlab-backup.timer=[Timer]\nOnCalendar=03:00\n",
        "/nix/store/11-unit-gitlab-backup.service/gitlab-backup.service=[Unit]\nBindsTo=gitlab.service\nAfter=gitlab.service\n",
        "/run/gitlab/redis.sock",
        "/srv/state/repositories/+gitaly/x",
        "/srv/state/config/secrets.yml",
    ]);
    let directory = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&directory).unwrap();
    for entry in std::fs::read_dir(root.path().join("nix/store")).unwrap() {
        let entry = entry.unwrap();
        let name =
            entry.file_name().into_string().unwrap().split_once("unit-").unwrap().1.to_owned();
        std::os::unix::fs::symlink(
            Path::new("/nix/store").join(entry.file_name()).join(&name),
            directory.join(&name),
        )
        .unwrap();
    }
    root
}

#[test]
fn an_empty_file_is_enough_for_nixos() {
    let root = nixos_tree();
    let config = parse("", root.path()).unwrap();
    assert_eq!(config.gitlab.layout, "nixos");
    // Without the target and the units that write the configuration: they stay up.
    assert_eq!(
        writers(&config),
        [
            "gitlab.service",
            "gitlab-sidekiq.service",
            "docker-registry-garbage-collect.service",
            "gitaly.service",
            "docker-registry-garbage-collect.timer",
            "gitlab-backup.timer",
            "gitlab-nightly.timer"
        ]
    );
    assert_eq!(
        config.gitlab.stopped_alone.iter().map(|unit| unit.as_str()).collect::<Vec<_>>(),
        ["gitlab.service"]
    );
    assert_eq!(config.redis[0].address, RedisAddress::Unix("/run/gitlab/redis.sock".into()));
    assert_eq!(
        config.files.paths,
        [PathBuf::from("/srv/state/repositories"), "/srv/state/config".into()]
    );
    assert_eq!(config.files.configuration, [PathBuf::from("/srv/state/config")]);
}

#[test]
fn what_is_stopped_alone_is_so_where_the_writers_are_named_too() {
    let root = tree(&[]);
    let rest = "redis = []\n[files]\npaths = [\"/x\"]";
    for (writers, alone) in
        [("\"gitlab.service\", \"gitaly.service\"", 1), ("\"gitaly.service\"", 0)]
    {
        let text = format!("gitlab = {{ layout = \"nixos\", writers = [{writers}] }}\n{rest}");
        assert_eq!(
            parse(&text, root.path()).unwrap().gitlab.stopped_alone.len(),
            alone,
            "{writers}"
        );
    }
}

fn omnibus_tree() -> tempfile::TempDir {
    let root = tree(&[
        "/usr/lib/systemd/system/gitlab-runsvdir.service",
        "/opt/gitlab/embedded/bin/sv",
        "/opt/gitlab/etc/gitlab-psql-rc=psql_user='gitlab-psql'\npsql_host='/var/opt/gitlab/pg'\npsql_port='5433'\n",
        "/var/opt/gitlab/gitaly/config.toml=[[storage]]\nname = 'a'\npath = \
         '/srv/a'\n[[storage]]\nname = 'b'\npath = '/srv/b'\n[hooks]\ncustom_hooks_dir = \
         '/srv/a/hooks'\n",
        "/srv/a/hooks/pre-receive",
        "/srv/b/x",
        "/var/opt/gitlab/gitlab-rails/shared/artifacts/1",
        "/var/opt/gitlab/gitlab-rails/uploads/1",
        "/etc/gitlab/gitlab-secrets.json",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/sshd_config",
    ]);
    for service in [
        "gitaly",
        "puma",
        "sidekiq",
        "redis",
        "postgresql",
        "nginx",
        "redis-exporter",
        "something-new",
        ".lock",
    ] {
        std::fs::create_dir_all(root.path().join("opt/gitlab/service").join(service)).unwrap();
    }
    root
}

#[test]
fn an_omnibus_package_has_its_writers_behind_proxies_and_its_databases_left_up() {
    let root = omnibus_tree();
    let config = parse("", root.path()).unwrap();
    assert_eq!(config.gitlab.layout, "omnibus");
    let expected = ["gitaly", "puma", "sidekiq", "something-new"]
        .map(|name| format!("gitlab-backup-proxy-{name}.service"));
    assert_eq!(writers(&config), expected);
    let puma = config.gitlab.proxies.iter().find(|proxy| proxy.name == "puma").unwrap();
    assert_eq!(puma.stop, ["/opt/gitlab/embedded/bin/sv", "down", "/opt/gitlab/service/puma"]);
    let phase = |at: usize| config.gitlab.phase(&config.gitlab.writers[at]).unwrap();
    assert_eq!([0, 1, 2].map(phase), [Phase::Gitaly, Phase::Web, Phase::Background]);
    assert_eq!(puma.status, ["/opt/gitlab/embedded/bin/sv", "status", "/opt/gitlab/service/puma"]);
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.host.as_str(), postgresql.port, postgresql.user.as_str()),
        ("/var/opt/gitlab/pg", 5433, "gitlab-psql")
    );
    assert_eq!(
        (postgresql.os_user.as_str(), postgresql.bin_dir),
        ("gitlab-psql", Some("/opt/gitlab/embedded/bin".into()))
    );
    // A restore stops and starts Redis; a backup does not.
    assert_eq!(
        config.redis[0].unit.as_ref().unwrap().as_str(),
        "gitlab-backup-proxy-redis.service"
    );
    assert_eq!(
        config.redis[0].address,
        RedisAddress::Unix("/var/opt/gitlab/redis/redis.socket".into())
    );
    let paths = [
        "/srv/a",
        "/srv/b",
        "/var/opt/gitlab/gitlab-rails/uploads",
        "/var/opt/gitlab/gitlab-rails/shared",
        "/etc/gitlab",
        "/etc/ssh/ssh_host_ed25519_key",
    ];
    assert_eq!(config.files.paths, paths.map(PathBuf::from));
    assert_eq!(
        config.files.configuration,
        paths[4..].iter().map(PathBuf::from).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_said_of_an_omnibus_package_comes_before_what_it_has() {
    let root = omnibus_tree();
    let own = "[gitlab]\nstays-up = \
               [\"gitlab-backup-proxy-gitaly.service\"]\n[[gitlab.proxy]]\nname = \"puma\"\nstart \
               = [\"/bin/x\"]\nstop = [\"/bin/x\"]\nstatus = [\"/bin/x\"]\n\
               [[redis]]\nurl = \"unix:///var/opt/gitlab/redis/redis.socket\"\n[postgresql]\nhost \
               = \"/srv/pg\"\n";
    let config = parse(own, root.path()).unwrap();
    assert_eq!(
        writers(&config),
        ["sidekiq", "something-new", "puma"]
            .map(|name| format!("gitlab-backup-proxy-{name}.service"))
    );
    assert_eq!(
        config.redis[0].unit.as_ref().unwrap().as_str(),
        "gitlab-backup-proxy-redis.service"
    );
    assert_eq!(
        (
            config.postgresql.as_ref().unwrap().user.as_str(),
            &config.postgresql.as_ref().unwrap().bin_dir
        ),
        ("postgres", &None)
    );
    std::fs::create_dir(root.path().join("opt/gitlab/service/praefect")).unwrap();
    let refused = parse("", root.path()).unwrap_err();
    assert!(
        refused.contains("gitlab.layout: Praefect runs here")
            && refused.contains("layout = \"custom\""),
        "{refused}"
    );
}

#[test]
fn a_masked_unit_is_not_there() {
    let root = source_tree();
    std::os::unix::fs::symlink(
        "/dev/null",
        root.path().join("etc/systemd/system/gitlab-sidekiq.service"),
    )
    .unwrap();
    assert_eq!(
        writers(&parse("", root.path()).unwrap()),
        ["gitlab.target", "gitlab-puma.service", "gitlab-puma.socket"]
    );
}

#[test]
fn every_key_is_read() {
    let root = tree(&[]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/full.toml");
    let config = Config::load(&path, &Host::new(root.path())).unwrap();
    assert_eq!(config.source, path);
    assert_eq!(
        (config.gitlab.layout.as_str(), writers(&config)),
        (
            "custom",
            vec![
                "gitlab-puma.service",
                "gitlab-sidekiq.service",
                "gitlab-backup-proxy-registry.service",
                "gitlab-backup-proxy-blobs.service",
                "nginx.service"
            ]
        )
    );
    let in_phase =
        |phase| -> Vec<&str> { config.gitlab.in_phase(phase).map(|unit| unit.as_str()).collect() };
    assert_eq!(in_phase(Phase::Door), ["nginx.service"]);
    assert_eq!(in_phase(Phase::Gitaly), ["gitlab-backup-proxy-blobs.service"]);
    assert_eq!(in_phase(Phase::Background), ["gitlab-sidekiq.service"]);
    assert_eq!(config.gitlab.drain.to_string(), "5s");
    let hold = &config.gitlab.hold;
    assert_eq!((hold.front[0].as_str(), hold.longest.to_string()), ("nginx.service", "6s".into()));
    assert_eq!((hold.fallback, &hold.obstacle), (Fallback::Fail, &None));
    let registry = &config.gitlab.proxies[0];
    assert_eq!(
        (registry.name.as_str(), registry.timeout, &registry.after[..]),
        ("registry", 120, &["blobs".to_owned()][..])
    );
    assert_eq!(
        (registry.status[3].as_str(), config.gitlab.proxies[1].timeout),
        ("{{.State.Running}}", 90)
    );
    let readiness = ReadinessUrl::Unix {
        socket: "/run/gitlab/gitlab.socket".into(),
        path: "/-/readiness".into(),
    };
    assert_eq!(config.gitlab.readiness, Some(readiness));
    assert_eq!(
        (config.gitlab.max_downtime.to_string(), config.gitlab.stop_grace.to_string()),
        ("900s".into(), "5s".into())
    );
    assert_eq!(config.schedule.calendar, "Mon..Sat *-*-* 02:30:00 UTC");
    assert_eq!(config.schedule.randomized_delay.to_string(), "0s");
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.host.as_str(), postgresql.port, postgresql.jobs),
        ("db.example.org", 5433, 4)
    );
    assert_eq!((postgresql.user.as_str(), postgresql.os_user.as_str()), ("gitlab", "git"));
    assert_eq!(
        (postgresql.restore_user.as_str(), postgresql.restore_os_user.as_str()),
        ("gitlab", "git")
    );
    assert_eq!(postgresql.databases.unwrap(), ["gitlabhq_production", "odd \"name\" $1"]);
    assert_eq!(postgresql.password, Some(SecretSource::Credential("gitlab.postgresql".into())));
    assert_eq!(postgresql.bin_dir, Some("/usr/lib/postgresql/15/bin".into()));
    assert_eq!((config.redis[0].name.as_str(), &config.redis[0].password), ("queues", &None));
    let cache = &config.redis[1];
    assert_eq!(
        cache.address,
        RedisAddress::Tcp { host: "cache.example.org".into(), port: 6380, tls: true }
    );
    assert_eq!(
        (cache.username.as_deref(), cache.timeout.to_string().as_str()),
        (Some("backup"), "5400s")
    );
    assert_eq!(
        cache.password,
        Some(SecretSource::File("/etc/gitlab-backup/redis.password".into()))
    );
    assert_eq!(
        config.files.paths,
        [PathBuf::from("/home/git/repositories"), "/home/git/gitlab/config".into()]
    );
    assert_eq!(config.files.exclude, ["*.tmp", "/home/git/gitlab/shared/cache/**"]);
    assert_eq!(config.files.omit, ["/home/git/gitlab/builds", "tcp://praefect:2305"]);
    assert!(!config.files.presync);
    assert_eq!(
        (config.repository.engine, config.repository.location.as_str()),
        (EngineName::Restic, "s3:https://s3.example.org/gitlab")
    );
    assert_eq!(config.repository.environment_file, Some("/etc/gitlab-backup/restic.env".into()));
    assert_eq!(
        (config.retention.keep_daily, config.retention.keep_weekly, config.retention.keep_monthly),
        (Some(7), None, Some(6))
    );
    assert_eq!(config.verify.calendar.as_deref(), Some("Sat 06:00"));
    assert_eq!(config.verify.randomized_delay.to_string(), "0s");
    assert!(!config.verify.drill && config.verify.read_data && config.verify.all_repositories);
    monitoring(&config.monitoring);
    assert_eq!(config.steps.len(), 1, "the disabled one is left out");
    let step = &config.steps[0];
    assert_eq!(
        (step.name.as_str(), step.stage, step.user.as_deref()),
        ("offsite-sync", Stage::Finish, Some("backup"))
    );
    assert_eq!(step.command, ["/usr/local/sbin/offsite", "--now", "100% of $HOME"]);
    assert_eq!(
        (step.description.as_deref(), step.timeout.to_string().as_str()),
        (Some("Push the repository off site"), "7200s")
    );
}

/// Checks the monitoring of `full.toml`.
fn monitoring(monitoring: &Monitoring) {
    assert_eq!(
        (monitoring.on_error, monitoring.grace.to_string(), monitoring.wait.to_string()),
        (OnError::Abort, "600s".into(), "180s".into())
    );
    let [
        SilenceConfig::Zabbix(api),
        SilenceConfig::ZabbixTrapper(trapper),
        SilenceConfig::Alertmanager(alerts),
        SilenceConfig::Broadcast(broadcast),
    ] = &monitoring.silences[..]
    else {
        panic!("{:?}", monitoring.silences)
    };
    assert_eq!(
        (api.endpoint.url.as_str(), &api.token),
        ("https://zabbix.example.org/api_jsonrpc.php", &file("zabbix.token"))
    );
    assert_eq!(
        (api.endpoint.ca_file.as_deref(), api.endpoint.proxy.as_deref()),
        (Some(Path::new("/etc/ssl/own-ca.pem")), Some("http://proxy.example.org:3128"))
    );
    assert_eq!(
        (&api.hosts[..], &api.groups[..], api.name.as_deref()),
        (
            &["gitlab.example.org".to_owned()][..],
            &["GitLab hosts".to_owned()][..],
            Some("GitLab backup")
        )
    );
    assert_eq!(
        (api.data_collection, &api.tags[..]),
        (
            true,
            &[
                ("scope".to_owned(), Some("availability".to_owned())),
                ("component".to_owned(), None)
            ][..]
        )
    );
    let servers: Vec<String> =
        trapper.trapper.servers.concat().iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["zabbix.example.org:10051", "node1.example.org:10051", "node2.example.org:10052"]
    );
    assert_eq!(
        (trapper.trapper.host.as_str(), &trapper.items[..]),
        ("gitlab backup", &["maintenance[puma]".to_owned()][..])
    );
    let psk = TrapperTls::Psk {
        identity: "gitlab".into(),
        key: SecretSource::Credential("zabbix.psk".into()),
    };
    assert_eq!(trapper.trapper.tls, Some(psk));
    assert_eq!(
        (alerts.username.as_deref(), &alerts.secret),
        (Some("backup"), &Some(file("alertmanager.password")))
    );
    let matchers: Vec<_> = alerts
        .matchers
        .iter()
        .map(|m| (m.name.as_str(), m.value.as_str(), m.is_regex, m.is_equal))
        .collect();
    assert_eq!(
        matchers,
        [("instance", "gitlab.*", true, true), ("severity", "info", false, false)]
    );
    assert_eq!(
        (broadcast.message.as_str(), &broadcast.token),
        ("Backup at {time}, {downtime}", &SecretSource::Credential("gitlab.token".into()))
    );
    let [
        ReportConfig::ZabbixTrapper(_),
        ReportConfig::Healthchecks(pings),
        ReportConfig::Prometheus(prometheus),
        ReportConfig::Webhook(hook),
        ReportConfig::Command(command),
    ] = &monitoring.reports[..]
    else {
        panic!("{:?}", monitoring.reports)
    };
    assert_eq!(pings.0.url, HookUrl::Secret(file("healthchecks.url")));
    assert_eq!(
        prometheus.textfile,
        Path::new("/var/lib/prometheus/node-exporter/gitlab-backup.prom")
    );
    assert_eq!(
        (&hook.0.url, &hook.0.token),
        (&HookUrl::Plain("https://hooks.example.org/backup".into()), &Some(file("webhook.token")))
    );
    assert_eq!(
        (&command.argv[..], command.timeout.to_string()),
        (&["/usr/local/sbin/backup-report".to_owned(), "--mail".to_owned()][..], "30s".into())
    );
}

fn file(name: &str) -> SecretSource {
    SecretSource::File(Path::new("/etc/gitlab-backup").join(name))
}

#[test]
fn what_is_switched_off_is_absent() {
    let root = source_tree();
    let config = parse(
        "redis = []\n[postgresql]\nenable = false\n[files]\ncommand = [\"/bin/own\"]",
        root.path(),
    )
    .unwrap();
    assert!(
        config.postgresql.is_none()
            && config.redis.is_empty()
            && config.files.paths.is_empty()
            && !config.files.presync
    );
}

#[test]
fn a_missing_file_is_named_with_the_option_that_names_another() {
    let error = Config::load(Path::new("/nonexistent/config.toml"), &Host::new("/"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/nonexistent/config.toml: there is no such file; allowed: a readable TOML file; --config \
         FILE selects another one"
    );
}

#[test]
fn a_restore_may_be_by_another_role() {
    let root = source_tree();
    let config =
        parse("[postgresql]\nuser = \"gitlab-backup\"\nrestore-user = \"postgres\"\n", root.path())
            .unwrap();
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.user.as_str(), postgresql.os_user.as_str()),
        ("gitlab-backup", "gitlab-backup")
    );
    let restoring = postgresql.restoring();
    assert_eq!((restoring.user.as_str(), restoring.os_user.as_str()), ("postgres", "postgres"));
}

#[test]
fn an_unknown_host_must_be_described() {
    let root = tree(&[]);
    assert_eq!(
        parse("", root.path()).unwrap_err(),
        include_str!("fixtures/config/unknown-host.txt").trim_end()
    );
    assert_eq!(
        parse("[gitlab]\nlayout = \"custom\"", root.path()).unwrap_err(),
        include_str!("fixtures/config/custom-empty.txt").trim_end()
    );
}

/// Every `*.toml` in `fixtures/config/refused` has its exact error text in the `*.txt` beside it.
#[test]
fn refusals_say_where_and_what() {
    let root = source_tree();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/refused");
    let mut inputs: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    inputs.sort();
    assert!(inputs.len() >= 10, "the fixtures are there");
    let mut wrong = String::new();
    for input in inputs {
        let actual = parse(&std::fs::read_to_string(&input).unwrap(), root.path())
            .map_or_else(|error| error, |_| "taken".to_owned());
        let expected = std::fs::read_to_string(input.with_extension("txt")).unwrap_or_default();
        if actual.trim_end() != expected.trim_end() {
            wrong.push_str(&format!(
                "--- {}\n{actual}\n",
                input.file_name().unwrap().to_string_lossy()
            ));
        }
    }
    assert!(wrong.is_empty(), "other than expected:\n{wrong}");
}

#[test]
fn check_says_which_unit_is_gitaly_or_that_none_is() {
    let root = tree(&[]);
    let found = |keys: &str| {
        let text = format!("files.paths = [\"/srv/git\"]\n[gitlab]\nlayout = \"custom\"\n{keys}");
        drain::finding(&parse(&text, root.path()).unwrap()).map(|finding| finding.line())
    };
    let said = found("writers = [\"a.service\", \"gitaly.service\"]\ndrain = \"3s\"").unwrap();
    assert!(said.contains("gitaly.service ends first") && said.contains("after 3s"), "{said}");
    let said = found("writers = [\"a.service\", \"git.service\"]").unwrap();
    assert!(said.contains("name its unit with [gitlab] gitaly"), "{said}");
    for known in ["gitaly = []", "quiesce = \"freeze\""] {
        assert_eq!(found(&format!("writers = [\"a.service\"]\n{known}")), None, "{known}");
    }
    let said = found("writers = [\"a.service\", \"git.service\"]\ngitaly = [\"git.service\"]");
    assert!(said.unwrap().contains("git.service ends first"));
}
