# The options of `services.gitlab-backup.settings`, named as the keys of the TOML. What is null is left out of the file: then the
# program's own default holds. `host` is what ./host.nix has found.
{
  lib,
  host,
  format,
}:
let
  inherit (lib) literalExpression mkOption types;
  inherit (types)
    bool
    enum
    int
    listOf
    nullOr
    str
    ;
  key =
    type: description:
    mkOption {
      type = nullOr type;
      default = null;
      inherit description;
    };
  # A default that stands in the configuration of the host.
  derived =
    type: default: text: description:
    mkOption {
      type = nullOr type;
      inherit default description;
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
  secret = what: "File with ${what}: a path on the host, never one in the store. It reaches the units as a credential.";
  credential =
    what: "Instead of the file: name of a systemd credential with ${what} in one of its stores, or `encrypted:` and the name of an encrypted one, such as of `credentials`.";
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
    layout = derived str host.layout ''"nixos"'' "How GitLab was installed: `nixos` is `services.gitlab`, `custom` says everything itself.";
    writers = derived (listOf str) host.writers "the units of `services.gitlab` that write" "What is stopped for a backup.";
    stays-up = key (listOf str) "Units of `writers` that are not stopped, because they serve a page meanwhile.";
    quiesce = key (enum [
      "stop"
      "freeze"
    ]) "Whether the writers are stopped or frozen.";
    readiness-url =
      derived str host.readiness ''"unix:''${services.gitlab.statePath}/tmp/sockets/gitlab.socket"''
        "What answers 2xx when GitLab is usable: `http://…`, `https://…` or `unix:/path/to/socket`.";
    max-downtime = key str "How long GitLab may be down; then it is started again and the run fails.";
    settle = key str "How long a unit of GitLab's that is being started or stopped is waited for, before GitLab is stopped.";
    stop-grace = key str "After a fault: how long a stop that hangs is waited for before it is killed.";
  };
  schedule = {
    calendar = key str "When a backup is made, see {manpage}`systemd.time(7)`.";
    randomized-delay = key str "How much later, at most.";
  };
  postgresql = {
    enable = key bool "Whether there is a PostgreSQL to dump.";
    host = derived str host.postgresql.host "`services.gitlab.databaseHost`, or the socket of `services.postgresql`" "Directory of the socket, or host.";
    port = derived int host.postgresql.port "that of `services.postgresql`" "Port, also part of the socket's name.";
    user = derived str host.postgresql.user "`services.postgresql.superUser`, or `services.gitlab.databaseUsername` elsewhere" "The role.";
    os-user = key str "The user of the units that ask PostgreSQL; left out, the role for sockets and `gitlab-backup` for hosts.";
    restore-user = key str "The role that restores; left out, `user`.";
    restore-os-user = key str "The user that connects as it; left out, the role for a role that is named, and else `os-user`.";
    databases = derived (listOf str) host.postgresql.databases "[ services.gitlab.databaseName ]" "What is dumped.";
    jobs = key int "How many tables are dumped at a time.";
    ddl-wait = key str "How long a statement that changes a table waits for its dump; then the run fails and lets it go first.";
    password-file = derived str host.postgresql.passwordFile "services.gitlab.databasePasswordFile, where the database is elsewhere" (
      secret "the role's password"
    );
    password-credential = key str (credential "the role's password");
    bin-dir = derived str host.postgresql.binDir ''"''${services.postgresql.package}/bin"'' "Where pg_dump and pg_restore are.";
  };
  redis = derived (tables {
    name = key str "Names it in messages; each has one of its own.";
    url = key str "`unix:///path`, `redis://[user@]host[:port]` or `rediss://…`.";
    password-file = key str (secret "the password");
    password-credential = key str (credential "the password");
    timeout = key str "How long a save may take.";
    unit = key str "What a restore stops to replace its file.";
  }) host.redis "the one of `services.gitlab.redisUrl`" "The Redis instances that are saved.";
  files = {
    paths = derived (listOf str) host.paths "what GitLab keeps in `services.gitlab.statePath`, the registry's and Pages' storage, and the files of `configuration`" "What the file backup takes.";
    configuration =
      derived (listOf str) host.configuration "the configuration in `services.gitlab.statePath` and the files of `services.gitlab.secrets`"
        "Those of `paths` that a restore replaces only with `--with-config`.";
    exclude = key (listOf str) "Patterns as in {manpage}`gitignore(5)`, from the root directory on.";
    command = key (listOf str) "An own file backup instead of `paths`; program and arguments.";
    presync = key bool "Whether there is a first pass while GitLab is up.";
    snapshot = key snapshot "How each path is captured.";
    lvm-snapshot-size = key str "What a snapshot of a classic logical volume may hold.";
    path = key (tables {
      path = key str "One of the paths.";
      snapshot = key snapshot "How this one is captured.";
    }) "Paths that are captured in a way of their own.";
  };
  repository = {
    engine = key (enum [
      "builtin"
      "restic"
    ]) "What writes the repository; both write restic's format.";
    location = key str "Where everything is kept: a directory, or with restic whatever it takes.";
    password-file = key str "${secret "the repository's password"} One that is not there is made: keep a copy elsewhere.";
    password-credential = key str (credential "the repository's password");
    environment-file = key str "For restic: file with the environment that has the credentials of its backend. Not in the store.";
  };
  retention = {
    keep-last = key int "How many of the newest are kept.";
    keep-daily = key int "The newest of each of so many days.";
    keep-weekly = key int "The newest of each of so many weeks.";
    keep-monthly = key int "The newest of each of so many months.";
    keep-yearly = key int "The newest of each of so many years.";
    keep-min = key int "Nothing is removed if fewer complete runs were left.";
    keep-within = key str "Everything that is not older than this before the newest.";
  };
  verify = {
    calendar = key str "When the newest run is verified; left out, no timer does.";
    randomized-delay = key str "How much later, at most.";
    drill = key bool "Whether it is restored into servers that are thrown away.";
    read-data = key bool "Whether every byte of the repository is read.";
    all-repositories = key bool "Whether every Git repository is checked, and not a sample.";
  };
  monitoring = {
    on-error = key (enum [
      "warn"
      "abort"
    ]) "Whether a run that cannot be silenced goes on. Everything else of this section is as README.md has it.";
    grace = key str "How long after a run the monitoring stays silent.";
    wait = key str "How long a run waits for the silence to take effect.";
  };
  step = key (tables {
    name = key str "Part of the unit's name: lower case letters, digits and `-`.";
    description = key str "One line.";
    stage = key (enum [
      "prepare"
      "window"
      "store"
      "finish"
    ]) "When it runs.";
    command = key (listOf str) "Program, absolute, and arguments.";
    user = key str "Who runs it; root if left out.";
    timeout = key str "How long it may take.";
    enable = key bool "Whether it runs at all.";
  }) "Your own steps, each of which becomes a unit.";
}
