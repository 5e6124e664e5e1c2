# GitLab's server and database. `extraDatabaseConfig` overrides the options, as in GitLab's module.
{
  lib,
  gitlab,
  server,
  # Whether the settings name a credential with the password.
  ownPassword,
  # Null if the registry has none.
  registryDatabase,
}:
let
  inherit (builtins) isPath;
  database = {
    host = gitlab.databaseHost;
    username = gitlab.databaseUsername;
    database = gitlab.databaseName;
  }
  // gitlab.extraDatabaseConfig;
  # An empty host or a directory is a socket, which admits the server's own role without a password.
  local = database.host == "" || lib.hasPrefix "/" database.host;
  password = gitlab.databasePasswordFile;
  port = number (
    database.port or (
      # `settings.port` since NixOS 24.05.
      if local then server.settings.port or server.port or 5432 else 5432
    )
  );
  # PostgreSQL and Rails accept a string too.
  number =
    value:
    if builtins.isString value && builtins.match "[1-9][0-9]*" value != null then
      lib.toInt value
    else
      value;
  # Whether the registry's database is on the same server, reached by its socket or by network.
  # Another server might not admit GitLab's role.
  registryHost = registryDatabase.host or "";
  registryName = registryDatabase.dbname or "registry";
  beside =
    local
    && (
      registryHost == ""
      || lib.hasPrefix "/" registryHost
      || lib.elem registryHost [
        "localhost"
        "127.0.0.1"
        "::1"
      ]
    )
    && toString (registryDatabase.port or 5432) == toString port;
  wanted = !local && !ownPassword && password != null;
  # A Nix path causes a warning instead, because GitLab itself copies it to the store.
  inStore = wanted && !isPath password && lib.hasPrefix builtins.storeDir (toString password);
in
{
  host = if database.host == "" then "/run/postgresql" else database.host;
  inherit port;
  user = if local then server.superUser or "postgres" else database.username;
  databases = [
    database.database
  ]
  ++ lib.optional (registryDatabase != null && beside) registryName;
  # The database that is not dumped unless the user names it.
  registryElsewhere = if registryDatabase != null && !beside then registryName else null;
  passwordFile = if wanted && !isPath password && !inStore then toString password else null;
  inherit inStore;
}
