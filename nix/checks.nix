# Assertions about errors in a host's configuration, and warnings about what only a person can do.
{
  cfg,
  config,
  lib,
  host,
  # Without what is null.
  settings,
}:
let
  inherit (builtins)
    attrNames
    concatMap
    elem
    filter
    isAttrs
    isList
    isPath
    ;
  inherit (lib)
    concatStringsSep
    hasPrefix
    hasSuffix
    optional
    optionals
    ;
  inherit (import ./host/paths.nix { inherit lib; }) covered;
  gitlab = config.services.gitlab;
  postgresql = settings.postgresql or { };
  repository = settings.repository or { };
  files = settings.files or { };
  listed = concatStringsSep ", ";

  # `KEY-file` is a secret, except for certificates. The typed options refuse the store by their
  # type; this is for the keys that have no option.
  isSecret =
    name:
    hasSuffix "-file" name
    && !(elem name [
      "ca-file"
      "tls-ca-file"
      "tls-certificate-file"
    ]);
  secrets =
    at: value:
    if isAttrs value then
      concatMap (
        name:
        if isSecret name && !isAttrs value.${name} then
          [
            {
              key = "${at}.${name}";
              path = value.${name};
            }
          ]
        else
          secrets "${at}.${name}" value.${name}
      ) (attrNames value)
    else if isList value then
      concatMap (secrets at) value
    else
      [ ];
  inStore = filter (
    secret: isPath secret.path || hasPrefix builtins.storeDir (toString secret.path)
  ) (secrets "services.gitlab-backup.settings" settings);

  elsewhere = (postgresql.enable or true) && postgresql ? host && !hasPrefix "/" postgresql.host;

  # Derived elements that a user's mkForce has replaced.
  saved = files.paths or [ ] ++ map (one: one.path or "") (files.path or [ ]);
  missing = {
    "gitlab.writers" = filter (unit: !elem unit (settings.gitlab.writers or [ ])) host.lists.writers;
    "files.paths" = optionals (!(files ? command)) (
      filter (path: !covered saved path) host.lists.paths
    );
    "files.configuration" = filter (
      path: !elem path (files.configuration or [ ])
    ) host.lists.configuration;
    "postgresql.databases" = optionals (postgresql.enable or true) (
      filter (name: !elem name (postgresql.databases or [ ])) host.lists.databases
    );
    "redis" = filter (url: !elem url (map (one: one.url or "") (settings.redis or [ ]))) (
      map (one: one.url) host.lists.redis
    );
  };
  replaced = key: {
    assertion = missing.${key} == [ ];
    message = "services.gitlab-backup.settings.${key} does not have ${listed missing.${key}}, which services.gitlab has: define it without mkForce to add to what is derived, or name in services.gitlab-backup.omit what the backup should leave out.";
  };

  address = host.redisWithPassword;
  undumped = host.registryDatabaseElsewhere;

  # The options of GitLab's own backups, and their counterparts here.
  own = gitlab.backup or { };
  isSet = option: default: own ? ${option} && own.${option} != default;
  mapped =
    optional (isSet "startAt" [ ]) "startAt is settings.schedule.calendar"
    ++ optional (isSet "path" "${gitlab.statePath}/backup") "path is settings.repository.location"
    # In hours where it is set, in seconds where it is read.
    ++ optional (isSet "keepTime" 0) (
      "keepTime is settings.retention.keep-within, here \"${toString (own.keepTime / 3600)}h\""
    )
    ++ optional (isSet "skip" "") "skip is omit, which takes paths and databases"
    ++ optional (isSet "uploadOptions" { }) (
      "uploadOptions is settings.repository, with engine = \"restic\", a location such as \"s3:…\" and an environment-file"
    );

  unanswered = answer: !elem answer cfg.acknowledged;
  done =
    answer: "Once that is done, say services.gitlab-backup.acknowledged = [ \"${answer}\" ].";
  local = hasPrefix "/" (repository.location or "/");
  generated = repository.password-file or "" == "/var/lib/gitlab-backup/repository.password";
in
{
  assertions = [
    {
      assertion = gitlab.enable || settings ? gitlab && settings.gitlab ? writers;
      message = "services.gitlab-backup derives its settings from services.gitlab, which is not enabled on this host: enable it, or say in services.gitlab-backup.settings what is stopped (gitlab.writers) and what is saved (files.paths).";
    }
    {
      assertion = inStore == [ ];
      message = "Everybody can read the Nix store: give the path of a file on the host, as a string, to ${
        listed (map (secret: secret.key) inStore)
      }.";
    }
    {
      assertion = !elsewhere || postgresql ? password-file || postgresql ? password-credential;
      message = "services.gitlab-backup.settings.postgresql.host is another host, which asks for a password: set services.gitlab-backup.settings.postgresql.password-file to the path of a file that has it, or password-credential.";
    }
    {
      assertion = files.paths or [ ] != [ ] || files.path or [ ] != [ ] || files ? command;
      message = "services.gitlab-backup.settings.files.paths is empty: there would be no files to save. Name the directories of repositories, uploads and configuration.";
    }
    {
      assertion =
        address == null || builtins.any (one: one.url or "" == address) (settings.redis or [ ]);
      message = "services.gitlab.redisUrl has a password in it, which everybody can read in the Nix store. Let GitLab reach Redis by the socket of services.redis.servers.gitlab, which needs none; or give services.gitlab-backup the password in a file: services.gitlab-backup.settings.redis = [ { name = \"main\"; url = \"${
        toString address
      }\"; password-file = \"/run/secrets/redis\"; } ].";
    }
  ]
  ++ map replaced (attrNames missing);

  warnings =
    map (
      option:
      "${option} is a Nix path. GitLab reads the secret from the Nix store then, where everybody can read it, and services.gitlab-backup does not save it: give the path of a file on the host, as a string."
    ) host.secretsAsNixPaths
    ++ optional (!(settings ? retention)) (
      "services.gitlab-backup keeps every backup for ever: services.gitlab-backup.settings.retention says how many are kept."
    )
    ++ optional host.imagesElsewhere (
      "The container registry keeps its images in a place that services.gitlab-backup does not know: they are not in its backups."
    )
    ++ optional (undumped != null && !elem undumped (postgresql.databases or [ ])) (
      "The container registry keeps its metadata in the database ${undumped} of another server, which is not in the backups of services.gitlab-backup: its images are not found without it."
    )
    ++ optional (local && unanswered "copy-elsewhere") (
      "The repository of services.gitlab-backup is a directory of this host, and is lost with it: copy it to another host, or set services.gitlab-backup.settings.repository.location to one. ${done "copy-elsewhere"}"
    )
    ++ optional (generated && unanswered "key-elsewhere") (
      "The password of the repository of services.gitlab-backup is generated on this host, and no backup can be read without it: keep a copy of ${repository.password-file} elsewhere. ${done "key-elsewhere"}"
    )
    ++ optional (gitlab.enable && mapped != [ ] && unanswered "gitlab-backup") (
      "services.gitlab.backup is set. These options are about GitLab's own backups, which services.gitlab-backup neither makes nor replaces. They end when a backup of services.gitlab-backup stops GitLab, and none is started until GitLab is back. Below services.gitlab-backup, ${concatStringsSep "; " mapped}. To keep both, say services.gitlab-backup.acknowledged = [ \"gitlab-backup\" ]."
    );
}
