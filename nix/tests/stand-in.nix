# The module beside units that are named and tied as those of services.gitlab, with a shell script for each program: backed up by what the
# timer starts, wrecked, restored.
{ module }:
{
  name = "gitlab-backup-stand-in";
  nodes.machine =
    { lib, pkgs, ... }:
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
          repository.location = "/srv/backup";
          retention.keep-last = 3;
        };
      };
      services.postgresql = {
        enable = true;
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
        gitlab-db-config = once (needs [ "gitlab-config.service" ] // { script = "echo ran >> /var/ran-db-config"; });
        gitaly = daemon (needs [ "gitlab-config.service" ]);
        gitlab-sidekiq = daemon (needs oneshots);
        gitlab = daemon (needs oneshots // { requiredBy = [ "gitlab.target" ]; });
      };
    };
  testScript = ''
    machine.wait_for_unit("gitlab.target")
    machine.wait_for_unit("gitlab-backup-secrets.service")
    machine.wait_for_unit("postgresql.service")
    machine.succeed("systemctl is-active gitlab-backup.timer")
    machine.succeed("echo mine > /var/gitlab/state/repositories/file")
    machine.succeed("runuser -u postgres -- psql -qc 'CREATE TABLE pushes AS SELECT 42 AS number' gitlab")
    machine.succeed("systemctl start gitlab-backup.target")
    machine.succeed("gitlab-backup list --json | grep '\"complete\": true'")
    machine.succeed("systemctl is-active gitlab.target gitlab.service gitlab-sidekiq.service gitaly.service")
    for oneshot in ["config", "db-config"]:
        machine.succeed(f"test $(wc -l < /var/ran-{oneshot}) = 1")
    machine.succeed("rm -r /var/gitlab/state/repositories; runuser -u postgres -- psql -qc 'DROP TABLE pushes' gitlab")
    machine.succeed("gitlab-backup restore --yes")
    machine.succeed("grep mine /var/gitlab/state/repositories/file")
    machine.succeed("runuser -u postgres -- psql -Atc 'SELECT number FROM pushes' gitlab | grep 42")
    machine.succeed("systemctl is-active gitlab.target gitlab.service gitlab-sidekiq.service gitaly.service")
  '';
}
