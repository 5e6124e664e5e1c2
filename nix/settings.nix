# The options of `services.gitlab-backup.settings`, named as the keys of the TOML. Null values are
# left out of the file, and the program's own defaults apply. `host` is the result of ./host.nix.
{
  lib,
  host,
  format,
  # Whether the repository's password is a credential.
  credentialed,
}:
let
  inherit (lib) literalExpression mkOption types;
  inherit (types)
    bool
    enum
    ints
    listOf
    nullOr
    port
    str
    ;
  # Older releases of nixpkgs have no `pathWith`, which refuses paths in the store.
  path = types.path;
  outside =
    if types ? pathWith then
      types.pathWith {
        inStore = false;
        absolute = true;
      }
    else
      path;

  key =
    type: example: description:
    mkOption {
      type = nullOr type;
      default = null;
      inherit example description;
    };
  # A default that is derived from the configuration of the host.
  derived =
    type: default: text: example: description:
    (key type example description)
    // {
      inherit default;
      defaultText = literalExpression text;
    };
  # A default of the module.
  preset =
    type: default: example: description:
    (key type example description) // { inherit default; };
  # The user's definitions are added to the derived ones.
  added =
    type: apply: text: example: description:
    (key type example description)
    // {
      inherit apply;
      defaultText = literalExpression text;
    };
  tables =
    options:
    listOf (
      types.submodule {
        freeformType = format.type;
        inherit options;
      }
    );
  secret =
    what:
    "File with ${what}: a path on the host, outside the Nix store. systemd passes it to the units as a credential.";
  credential =
    what:
    "Instead of the file: the name of a systemd credential with ${what} in one of systemd's credential stores, or `encrypted:` and the name of an encrypted one, such as one of {option}`services.gitlab-backup.credentials`.";
  snapshot = enum [
    "auto"
    "btrfs"
    "lvm"
    "zfs"
    "reflink"
    "none"
  ];
in
{
  gitlab = {
    layout =
      derived str host.layout ''"nixos"'' "custom"
        "How GitLab was installed. `nixos` is {option}`services.gitlab`; `custom` derives nothing.";
    writers = added (listOf str) host.lists.writers "the units of services.gitlab that write" [
      "gitlab-exporter.service"
    ] "The units that a backup stops. Definitions add to the derived ones.";
    stays-up =
      key (listOf str) [ "gitlab-workhorse.service" ]
        "Units that are not stopped, because they serve a maintenance page or write no data that is backed up.";
    quiesce =
      key
        (enum [
          "stop"
          "hold"
          "auto"
          "freeze"
        ])
        "hold"
        "Whether the writers are stopped, held still while nothing is in progress, or frozen. `auto` holds them where that is possible.";
    front =
      key (listOf str)
        [
          "nginx.service"
          "sshd.service"
        ]
        "With `hold`: the units through which users reach GitLab. By default web servers and SSH servers that run.";
    max-hold = key str "8s" "With `hold`: how long users may wait.";
    hold-fallback = key (enum [
      "stop"
      "fail"
    ]) "stop" "With `hold`: whether GitLab is stopped, or the run fails, if GitLab cannot be held.";
    readiness-url =
      derived str host.readiness
        ''"unix:''${config.services.gitlab.statePath}/tmp/sockets/gitlab.socket"''
        "http://127.0.0.1:8080/-/readiness"
        "The URL that answers 2xx when GitLab is usable: `http://…`, `https://…` or `unix:/path/to/socket`.";
    max-downtime =
      key str "10min"
        "How long GitLab may be down. After that GitLab is started again and the run fails.";
    drain =
      key str "10s"
        "How long pushes and fetches may take to end before GitLab is stopped; then those that have changed nothing are ended.";
    door = key (listOf str) [
      "nginx.service"
    ] "Units that lead to GitLab and are stopped first. They are started last.";
    gitaly = key (listOf str) [
      "git.service"
    ] "The writers that are Gitaly, if their names do not say so.";
    background = key (listOf str) [
      "jobs.service"
    ] "The writers that run background jobs, if their names do not say so.";
    settle =
      key str "5min"
        "How long a run waits, before it stops GitLab, for a unit that is being started or stopped.";
    stop-grace =
      key str "10s"
        "After a failure: how long a run waits for a stop that hangs before it kills the unit.";
  };
  schedule = {
    calendar =
      key str "*-*-* 03:30:00"
        "When a backup is made, see {manpage}`systemd.time(7)`. Every night at 02:30 if left out.";
    randomized-delay = key str "30min" "The longest random delay after that time.";
  };
  postgresql = {
    enable = key bool false "Whether there is a PostgreSQL server to dump.";
    host =
      derived str host.postgresql.host
        "services.gitlab.databaseHost, or the socket of services.postgresql"
        "/run/postgresql"
        "The directory of the server's socket, or its host.";
    port =
      derived port host.postgresql.port "the port of services.postgresql" 5433
        "The server's port, which is also part of the socket's name.";
    user =
      derived str host.postgresql.user
        "services.postgresql.superUser, or services.gitlab.databaseUsername for another host"
        "gitlab-backup"
        "The role that makes the dumps.";
    os-user =
      key str "gitlab-backup"
        "The account of the units that connect to PostgreSQL. If left out: the name of the role for a socket, and `gitlab-backup` for a host.";
    restore-user = key str "postgres" "The role that restores. If left out, the one of `user`.";
    restore-os-user =
      key str "postgres"
        "The account that connects as `restore-user`. If left out: the name of that role where one is named, and else `os-user`.";
    databases =
      added (listOf str) host.lists.databases
        "services.gitlab.databaseName and the database of the registry"
        [ "registry" ]
        "The databases that are dumped. Definitions add to the derived one.";
    jobs = key ints.positive 4 "How many tables are dumped at the same time.";
    ddl-wait =
      key str "1min"
        "How long a statement that changes a table waits for the dump of that table. After that the run fails and the statement continues.";
    password-file =
      derived outside host.postgresql.passwordFile
        "services.gitlab.databasePasswordFile if the database is on another host"
        "/run/secrets/gitlab-database"
        (secret "the role's password");
    password-credential = key str "encrypted:gitlab.database" (credential "the role's password");
    bin-dir =
      derived path host.postgresql.binDir ''"''${config.services.postgresql.package}/bin"''
        (literalExpression ''"''${pkgs.postgresql_17}/bin"'')
        "The directory of pg_dump and pg_restore.";
  };
  redis =
    added
      (tables {
        name = key str "cache" "The name of this instance in messages; each instance needs one.";
        url =
          key str "unix:///run/redis-cache/redis.sock"
            "`unix:///path`, `redis://[user@]host[:port]` or `rediss://…`.";
        password-file = key outside "/run/secrets/redis" (secret "the password");
        password-credential = key str "encrypted:gitlab.redis" (credential "the password");
        timeout = key str "10min" "How long a save may take.";
        unit =
          key str "redis-cache.service"
            "The unit that a restore stops to replace the file of this instance.";
      })
      host.lists.redis
      "the instance of services.gitlab.redisUrl"
      (literalExpression ''[ { name = "cache"; url = "redis://cache.example.com"; } ]'')
      "The Redis instances that are saved. Definitions add to the derived one; one with its URL adds keys to it.";
  files = {
    paths =
      added (listOf outside) host.lists.paths
        "the data of services.gitlab, wherever its settings put it, and the files of `configuration`"
        [ "/srv/gitlab-extra" ]
        "The paths that are backed up. Definitions add to the derived ones; leave out a derived one by {option}`services.gitlab-backup.omit`.";
    configuration =
      added (listOf outside) host.lists.configuration
        "the configuration of services.gitlab and the files with its secrets"
        [ "/srv/gitlab-extra" ]
        "Those of `paths` that a restore replaces only with `--with-config`.";
    exclude = added (listOf str) host.lists.exclude "the paths of services.gitlab-backup.omit" [
      "*.tmp"
    ] "Patterns as in {manpage}`gitignore(5)`, relative to the root directory.";
    omit =
      added (listOf str) host.lists.omit "what services.gitlab-backup.omit names of it"
        [ "/var/gitlab/state/builds" ]
        "Directories, and addresses of storages, that GitLab's configuration names and that the backup does not have. Use {option}`services.gitlab-backup.omit`.";
    command = key (listOf str) [
      "/run/current-system/sw/bin/own-backup"
      "--all"
    ] "A program of your own that backs the files up instead of `paths`, with its arguments.";
    presync = key bool false "Whether files are copied once before GitLab is stopped.";
    snapshot = key snapshot "btrfs" "How each path is captured.";
    lvm-snapshot-size =
      key str "20%ORIGIN"
        "The size of the snapshot of a classic logical volume, as for {manpage}`lvcreate(8)`.";
    path =
      key
        (tables {
          path = key outside "/srv/git" "One of the paths.";
          snapshot = key snapshot "lvm" "How this path is captured.";
        })
        [
          {
            path = "/srv/git";
            snapshot = "lvm";
          }
        ]
        "Paths that are captured in another way than the rest.";
  };
  repository = {
    engine = key (enum [
      "builtin"
      "restic"
    ]) "restic" "The program that writes the repository. Both write restic's format.";
    location =
      key str "s3:https://s3.example.com/gitlab"
        "The repository: a directory or, with engine `restic`, any location that restic supports. {file}`/var/backups/gitlab` if left out.";
    password-file =
      derived outside (if credentialed then null else "/var/lib/gitlab-backup/repository.password")
        ''"/var/lib/gitlab-backup/repository.password"''
        "/run/secrets/gitlab-backup"
        "${secret "the repository's password"} A password is generated at the default path only, and only for a new repository.";
    password-credential = key str "encrypted:gitlab.repository" (
      credential "the repository's password"
    );
    environment-file =
      key outside "/run/secrets/gitlab-backup-s3"
        "For restic: a file with the environment variables that its backend needs. A path on the host, outside the Nix store.";
  };
  # If all of them are null, every run is kept.
  retention = {
    keep-last = key ints.unsigned 3 "How many of the newest runs are kept.";
    keep-daily = preset ints.unsigned 7 14 "For how many days the newest run of the day is kept.";
    keep-weekly = preset ints.unsigned 4 8 "For how many weeks the newest run of the week is kept.";
    keep-monthly = preset ints.unsigned 6 12 "For how many months the newest run of the month is kept.";
    keep-yearly = key ints.unsigned 2 "For how many years the newest run of the year is kept.";
    keep-min = key ints.unsigned 3 "Nothing is removed if fewer complete runs than this would be left.";
    keep-within = key str "14d" "Every run is kept that is at most this much older than the newest.";
  };
  verify = {
    calendar =
      preset str "*-*-01 06:00:00" "Sat 06:00"
        "When the newest run is verified. Null for never.";
    randomized-delay = key str "1h" "The longest random delay after that time.";
    drill = key bool true "Whether the dumps are restored into servers that are removed afterwards.";
    read-data = key bool true "Whether every byte of the repository is read.";
    all-repositories = key bool true "Whether every Git repository is checked instead of a sample.";
  };
  monitoring = {
    on-error =
      key
        (enum [
          "warn"
          "abort"
        ])
        "abort"
        "Whether a run continues if the monitoring cannot be silenced. The receivers, such as `zabbix` and `webhook`, are described in the README.";
    grace = key str "5min" "How long the monitoring stays silent after a run.";
    wait = key str "1min" "How long a run waits for the silence to take effect.";
  };
  step =
    key
      (tables {
        name = key str "offsite-sync" "Part of the unit's name: lower case letters, digits and `-`.";
        description = key str "Push the repository off site" "One line.";
        stage = key (enum [
          "prepare"
          "window"
          "store"
          "finish"
        ]) "finish" "When the step runs.";
        command = key (listOf str) [
          "/run/current-system/sw/bin/offsite"
          "--now"
        ] "The program, by its absolute path, and its arguments.";
        user = key str "backup" "The account that runs it; root if left out.";
        timeout = key str "2h" "How long it may take.";
        enable = key bool false "Whether it runs at all.";
      })
      (literalExpression ''
        [
          {
            name = "offsite-sync";
            stage = "finish";
            command = [ "''${pkgs.rclone}/bin/rclone" "sync" "/var/backups/gitlab" "offsite:gitlab" ];
          }
        ]
      '')
      "Steps of your own; each becomes a unit.";
}
