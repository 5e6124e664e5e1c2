# Assertions about errors in a host's configuration, and warnings about tasks that only a person can
# do.
{
  cfg,
  config,
  lib,
  host,
  # Without null values.
  settings,
}:
let
  inherit (import ./host/paths.nix { inherit lib; }) covered;
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
    subtractLists
    ;
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

  # The credentials that settings name, and those that exist but are not named.
  named = map (lib.removePrefix "encrypted:") (
    filter (hasPrefix "encrypted:") (credentials settings)
  );
  credentials =
    value:
    if isAttrs value then
      concatMap (
        name: if hasSuffix "-credential" name then [ value.${name} ] else credentials value.${name}
      ) (attrNames value)
    else if isList value then
      concatMap credentials value
    else
      [ ];
  unused = subtractLists named (attrNames cfg.credentials);

  # NixOS adds these to the configured calendar, and both apply.
  calendars = filter (name: config.systemd.timers.${name}.timerConfig.OnCalendar or [ ] != [ ]) (
    filter (name: config.systemd.timers ? ${name}) (attrNames calendarOf)
  );
  calendarOf = {
    gitlab-backup-run = "schedule.calendar";
    gitlab-backup-verify = "verify.calendar";
  };

  unsaved = filter (storage: !elem storage.address cfg.omit) host.remoteStorages;
  # Paths of the user that contain GitLab's configuration, except those where services.gitlab itself
  # keeps it.
  covering = filter (
    path: builtins.any (one: one != path && covered [ path ] one) host.configuration
  ) (subtractLists (host.data ++ host.configuration) (files.paths or [ ]));

  address = host.redisWithPassword;
  undumped = host.registryDatabaseElsewhere;

  # The options of GitLab's own backups, and their counterparts here.
  own = gitlab.backup or { };
  isSet = option: default: own ? ${option} && own.${option} != default;
  mapped =
    optional (isSet "startAt" [ ]) "startAt is settings.schedule.calendar"
    ++ optional (isSet "path" "${gitlab.statePath}/backup") "path is settings.repository.location"
    # The option is set in hours and read in seconds.
    ++ optional (isSet "keepTime" 0) (
      "keepTime is settings.retention.keep-within, here \"${toString (own.keepTime / 3600)}h\""
    )
    ++ optional (isSet "skip" "") "skip is omit, which takes paths and databases"
    ++ optional (isSet "uploadOptions" { }) (
      "uploadOptions is settings.repository, with engine = \"restic\", a location such as \"s3:…\" and an environment-file"
    );

  unanswered = answer: !elem answer cfg.acknowledged;
  done = answer: "When that is done, set services.gitlab-backup.acknowledged = [ \"${answer}\" ].";
  meant = answer: "If this is intended, set services.gitlab-backup.acknowledged = [ \"${answer}\" ].";
  local = host.isDirectory (repository.location or "/");
  generated = repository.password-file or "" == "/var/lib/gitlab-backup/repository.password";
in
{
  assertions = [
    {
      assertion = gitlab.enable || settings ? gitlab && settings.gitlab ? writers;
      message = "services.gitlab-backup derives its settings from services.gitlab, which is not enabled on this host: enable it, or name in services.gitlab-backup.settings the units to stop (gitlab.writers) and the files to save (files.paths).";
    }
    {
      assertion = inStore == [ ] && host.secretsInStore == [ ];
      message = "Everybody can read the Nix store: give the path of a file on the host, as a string, to ${
        listed (map (secret: secret.key) inStore ++ host.secretsInStore)
      }.";
    }
    {
      assertion = !elsewhere || postgresql ? password-file || postgresql ? password-credential;
      message = "The database is on another host, ${postgresql.host or ""}, which asks for a password: set services.gitlab.databasePasswordFile, or services.gitlab-backup.settings.postgresql.password-file, to the path of a file with the password, as a string, or set a password-credential.";
    }
    {
      assertion = repository ? password-file || repository ? password-credential;
      message = "services.gitlab-backup.settings.repository.password-file is null, and there is no password-credential: leave password-file out to have a password generated, or name a file or a credential.";
    }
    {
      assertion = unsaved == [ ];
      message = "services.gitlab has repositories on another host, which services.gitlab-backup does not save (${
        listed (map (storage: "storage ${storage.name} at ${storage.address}") unsaved)
      }): back them up on that host, and name the address in services.gitlab-backup.omit.";
    }
    {
      assertion = covering == [ ];
      message = "services.gitlab-backup.settings.files.paths has ${listed covering}, which contains the configuration of GitLab: a restore would replace the configuration without --with-config. The data that services.gitlab keeps there is saved anyway: name only the other directories.";
    }
    {
      assertion = files.paths or [ ] != [ ] || files.path or [ ] != [ ] || files ? command;
      message = "services.gitlab-backup.settings.files.paths is empty: there would be no files to save. Name the directories of repositories, uploads and configuration.";
    }
    {
      assertion = address == null || builtins.any (one: one.url or "" == address) (settings.redis or [ ]);
      message = "services.gitlab.redisUrl contains a password, which everybody can read in the Nix store. Connect GitLab to Redis by the socket of services.redis.servers.gitlab, which needs none; or leave Redis out by services.gitlab-backup.omit = [ \"${toString address}\" ]; or give services.gitlab-backup the password in a file: services.gitlab-backup.settings.redis = [ { name = \"main\"; url = \"${toString address}\"; password-file = \"/run/secrets/redis\"; } ].";
    }
  ]
  ++ map (name: {
    assertion = false;
    message = "systemd.timers.${name}.timerConfig.OnCalendar, or systemd.services.${name}.startAt, would be in addition to the calendar of services.gitlab-backup: set services.gitlab-backup.settings.${calendarOf.${name}} instead.";
  }) calendars;

  warnings =
    map (
      option:
      "${option} is a Nix path. GitLab then reads the secret from the Nix store, where everybody can read it, and services.gitlab-backup does not save it: set the path of a file on the host, as a string."
    ) host.secretsAsNixPaths
    ++ map (
      element:
      "services.gitlab-backup.omit names ${element}, which services.gitlab-backup does not derive: it has no effect."
    ) host.lists.idle
    ++ map (
      element:
      "services.gitlab-backup.omit names ${element}, but services.gitlab-backup.settings.files.paths contains it: it is saved."
    ) host.lists.savedAnyway
    ++ optionals (unanswered "configuration-inside") (
      map (
        path:
        "services.gitlab keeps data in ${path}, which contains its configuration or secrets: a restore replaces them too, even without --with-config. ${meant "configuration-inside"}"
      ) host.lists.around
    )
    ++ map (
      name:
      "services.gitlab-backup.credentials has ${name}, but no setting uses it: set a *-credential of services.gitlab-backup.settings to \"encrypted:${name}\"."
    ) unused
    ++ optional (!(settings ? retention) && unanswered "keep-all") (
      "services.gitlab-backup keeps every backup for ever: services.gitlab-backup.settings.retention limits them. ${meant "keep-all"}"
    )
    ++ optional (host.imagesElsewhere && unanswered "registry-images") (
      "The container registry keeps its images in a place that services.gitlab-backup does not know: they are not in its backups. If it is a directory of this host, name it in services.gitlab-backup.settings.files.paths. ${done "registry-images"}"
    )
    ++ optional (undumped != null && unanswered "registry-database") (
      "The container registry keeps its metadata in the database ${undumped} on another server, which is not in the backups of services.gitlab-backup: the images are useless without it. ${done "registry-database"}"
    )
    ++ optional (local && unanswered "copy-elsewhere") (
      "The repository of services.gitlab-backup is a directory of this host, and is lost with it: copy it to another host, or set services.gitlab-backup.settings.repository.location to one. ${done "copy-elsewhere"}"
    )
    ++ optional (generated && unanswered "key-elsewhere") (
      "The password of the repository of services.gitlab-backup is generated on this host, and no backup can be read without it: keep a copy of ${repository.password-file} elsewhere. ${done "key-elsewhere"}"
    )
    ++ optional (gitlab.enable && mapped != [ ] && unanswered "gitlab-backup") (
      "services.gitlab.backup is set. These options configure GitLab's own backups, which services.gitlab-backup neither makes nor replaces. Such a backup ends when services.gitlab-backup stops GitLab, and none is started until GitLab is back. The corresponding options of services.gitlab-backup: ${concatStringsSep "; " mapped}. ${meant "gitlab-backup"}"
    );
}
