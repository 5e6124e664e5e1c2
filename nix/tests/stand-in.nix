# Starts the unit of the timer for a backup, destroys the data, restores it.
{ module }:
{
  name = "gitlab-backup-stand-in";
  nodes.machine = import ./shape.nix { inherit module; };
  testScript = ''
    ${builtins.readFile ./booted.py}
    machine.succeed("echo mine > /var/gitlab/state/repositories/file")
    machine.succeed("runuser -u postgres -- psql -qc 'CREATE TABLE pushes AS SELECT 42 AS number' gitlab")
    machine.succeed("systemctl start gitlab-backup.target")
    assert complete_runs() == 1
    gitlab_is_up()
    machine.succeed("rm -r /var/gitlab/state/repositories")
    machine.succeed("runuser -u postgres -- psql -qc 'DROP TABLE pushes' gitlab")
    machine.succeed("gitlab-backup restore --yes")
    machine.succeed("grep mine /var/gitlab/state/repositories/file")
    machine.succeed("runuser -u postgres -- psql -Atc 'SELECT number FROM pushes' gitlab | grep 42")
    gitlab_is_up()
  '';
}
