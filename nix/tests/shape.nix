# A machine that resembles one with services.gitlab: units with the same names and dependencies, and a
# shell script for each program.
{ module }:
{ pkgs, ... }:
let
  state = "/var/gitlab/state";
  member = {
    partOf = [ "gitlab.target" ];
    wantedBy = [ "gitlab.target" ];
  };
  once =
    more:
    member
    // more
    // {
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        TimeoutSec = "infinity";
      };
    };
  daemon =
    more:
    member
    // more
    // {
      script = "exec sleep infinity";
      serviceConfig = {
        Restart = "on-failure";
        TimeoutSec = "infinity";
      };
    };
  needs = units: {
    after = units;
    bindsTo = units;
  };
  oneshots = [
    "gitlab-config.service"
    "gitlab-db-config.service"
  ];
in
{
  imports = [ module ];
  services.gitlab-backup = {
    enable = true;
    acknowledged = [
      "copy-elsewhere"
      "key-elsewhere"
    ];
    settings = {
      gitlab = {
        layout = "nixos";
        writers = [
          "gitlab.service"
          "gitlab-sidekiq.service"
          "gitaly.service"
        ];
      };
      postgresql = {
        host = "/run/postgresql";
        databases = [ "gitlab" ];
        bin-dir = "${pkgs.postgresql}/bin";
      };
      redis = [
        {
          name = "main";
          url = "unix:///run/redis-gitlab/redis.sock";
          unit = "redis-gitlab.service";
        }
      ];
      files.paths = [
        "${state}/repositories"
        "${state}/config"
      ];
      files.configuration = [ "${state}/config" ];
    };
  };
  services.postgresql = {
    enable = true;
    package = pkgs.postgresql;
    ensureDatabases = [ "gitlab" ];
  };
  services.redis.servers.gitlab.enable = true;
  systemd.tmpfiles.rules = [
    "d ${state}/repositories - - - -"
    "d ${state}/config - - - -"
  ];
  systemd.targets.gitlab.wantedBy = [ "multi-user.target" ];
  systemd.services = {
    gitlab-config = once { script = "echo ran >> /var/ran-config"; };
    gitlab-db-config = once (
      needs [ "gitlab-config.service" ] // { script = "echo ran >> /var/ran-db-config"; }
    );
    gitaly = daemon (needs [ "gitlab-config.service" ]);
    gitlab-sidekiq = daemon (needs oneshots);
    gitlab = daemon (needs oneshots // { requiredBy = [ "gitlab.target" ]; });
  };
}
