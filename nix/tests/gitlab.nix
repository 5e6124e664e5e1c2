# The module with the real services.gitlab and no setting except `enable`. Slow.
{ module }:
{
  name = "gitlab-backup-gitlab";
  nodes.machine =
    { lib, pkgs, ... }:
    let
      # Only in a test may a secret be in the store.
      secret = text: "${pkgs.writeText "secret" text}";
      random = "Aig5zaic${lib.fixedWidthString 40 "0" ""}";
    in
    {
      imports = [ module ];
      virtualisation = {
        memorySize = 8192;
        cores = 4;
        diskSize = 16384;
      };
      services.gitlab = {
        enable = true;
        initialRootPasswordFile = secret "notproductionsafe";
        secrets = {
          secretFile = secret "1${random}";
          otpFile = secret "2${random}";
          dbFile = secret "3${random}";
          activeRecordPrimaryKeyFile = secret "4${random}";
          activeRecordDeterministicKeyFile = secret "5${random}";
          activeRecordSaltFile = secret "6${random}";
          jwsFile = "${pkgs.runCommand "jws" {
            nativeBuildInputs = [ pkgs.openssl ];
          } "openssl genrsa 2048 > $out"}";
        };
      };
      services.gitlab-backup.enable = true;
    };
  testScript = ''
    ready = (
        "curl -fsS --unix-socket /var/gitlab/state/tmp/sockets/gitlab.socket"
        " http://localhost/-/readiness"
    )
    oneshots = "systemctl show -P InvocationID gitlab-config gitlab-db-config"
    machine.wait_for_unit("gitlab.target", timeout=1800)
    machine.wait_until_succeeds(ready, timeout=1800)
    machine.wait_for_unit("gitlab-backup-secrets.service")
    before = machine.succeed(oneshots)
    machine.succeed("gitlab-backup check >&2")
    machine.succeed("systemctl start gitlab-backup.target")
    machine.succeed("gitlab-backup list --json | grep '\"complete\": true'")
    assert before == machine.succeed(oneshots)
    machine.succeed("rm -r /var/gitlab/state/uploads /var/gitlab/state/repositories")
    machine.succeed("gitlab-backup restore --yes")
    machine.succeed("test -d /var/gitlab/state/repositories")
    machine.wait_until_succeeds(ready, timeout=1800)
  '';
}
