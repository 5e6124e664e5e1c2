# Shared by the tests: waits until the machine is ready, and checks runs.
GITLAB = ["gitlab.target", "gitlab.service", "gitlab-sidekiq.service", "gitaly.service"]


def booted():
    machine.wait_for_unit("multi-user.target")
    machine.wait_for_unit("gitlab.target")
    machine.wait_for_unit("gitlab-backup-secrets.service")
    # The server is active before another unit has created the database.
    machine.wait_until_succeeds("runuser -u postgres -- psql -qc 'SELECT 1' gitlab")
    machine.succeed("systemctl is-active gitlab-backup-run.timer")


def complete_runs():
    return machine.succeed("gitlab-backup list --json").count('"complete": true')


def gitlab_is_up():
    # One by one: for several, systemctl succeeds if one is active.
    for unit in GITLAB:
        machine.succeed(f"systemctl is-active {unit}")
    for oneshot in ["config", "db-config"]:
        machine.succeed(f"test $(wc -l < /var/ran-{oneshot}) = 1")


booted()
