window = "gitlab-backup-window.service"
deadline = "gitlab-backup-deadline.timer"


def switch(name):
    return f"/run/booted-system/specialisation/{name}/bin/switch-to-configuration test >&2"


def hold():
    machine.succeed("touch /var/hold; systemctl start --no-block gitlab-backup.target")
    for unit in [window, deadline]:
        machine.wait_until_succeeds(f"systemctl is-active {unit}")
    machine.wait_until_succeeds(
        "systemctl show -P ActiveState gitlab-backup-step-hold | grep activating"
    )
    machine.fail("systemctl is-active gitlab.service")


with subtest("a switch that does not wait fails and changes nothing"):
    hold()
    show = f"systemctl show -P InvocationID {window} {deadline}"
    before = machine.succeed(show)
    machine.fail(switch("impatient"))
    assert before == machine.succeed(show)
    machine.fail("systemctl is-active gitlab.service")

with subtest("a switch that waits leaves the run alone"):
    machine.succeed("systemd-run --on-active=10 rm /var/hold")
    machine.succeed(switch("other"))
    assert complete_runs() == 1
    machine.succeed("systemctl show -P Environment gitaly | grep CHANGED")
    gitlab_is_up()
    machine.succeed("systemctl is-active gitlab-backup-run.timer")

with subtest("the module is switched off in the window"):
    hold()
    machine.succeed(switch("without"))
    for unit in GITLAB:
        machine.wait_until_succeeds(f"systemctl is-active {unit}")
    machine.fail("test -e /run/gitlab-backup/paused.json")
    machine.fail("systemctl cat gitlab-backup.target")
