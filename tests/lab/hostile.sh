# Shared by scenarios with an attacker; sourced after lib.sh. An attacker has the rights of one
# account and no other rights.
#
#   as ACCOUNT CMD          runs a shell command as that account
#   attack ACCOUNT CMD      repeats the command in the background until truce
#   truce                   ends the attack
#   canaries                creates files that only root can change or read, and records their state
#   unhurt VARIANT [WORDS]  fails if that state has changed or root's secret has leaked; otherwise
#                           prints WORDS, or "held", for the variant

as() { inside "runuser -u $1 -- bash -c $(printf %q "$2")"; }
attack() { inside "systemd-run -q --collect --unit=attack -p KillMode=control-group runuser -u $1 -- bash -c $(printf %q "while :; do $2; done 2>/dev/null")"; }
truce() { inside 'systemctl stop attack 2>/dev/null || true'; }

# Without the files in /etc that a run or a restore changes, or that the lab's volumes need.
STATE_OF_ROOT='{ find /etc /root /usr/local /srv/canary -path /etc/gitlab-backup -prune -o -path /etc/systemd/system -prune -o -path /etc/lab-volumes -prune -o -printf "%p %y %m %U %G %s %l\n" | sort; find /root /srv/canary -printf "%p %T@\n" | sort; sha256sum /etc/shadow /etc/passwd /srv/canary/*; }'
canaries() {
  inside 'install -d /srv/canary /root/.ssh; echo precious > /srv/canary/file; echo key > /root/.ssh/authorized_keys; chmod 700 /root/.ssh
    # A line that cannot appear anywhere else by chance.
    echo "canary:$(head -c 24 /dev/urandom | base64 | tr -d /+=):1:0:99999:7:::" >> /etc/shadow
    grep ^canary: /etc/shadow | cut -d: -f2 > /srv/secret; chmod 600 /srv/secret; '"$STATE_OF_ROOT"' > /srv/root-before'
}
told=0
unhurt() {
  local out
  out=$(inside "$STATE_OF_ROOT > /srv/root-now; diff /srv/root-before /srv/root-now" || true)
  [ -z "$out" ] || fail "$1: root's files have changed: $(head -5 <<< "$out")"
  out=$(inside 'secret=$(cat /srv/secret); { journalctl -o cat -u "gitlab-backup*" | grep -aF "$secret"; grep -raF -- "$secret" /srv/out* /var/lib/gitlab-backup /run/gitlab-backup; } 2>/dev/null | head -3' || true)
  [ -z "$out" ] || fail "$1: a secret of root's came out: $out"
  told=$((told + 1))
  echo "variant: $1 → ${2:-held}"
}
# no_secret_stored WHAT: no snapshot that was stored since the last call contains root's secret.
# restic reads them.
no_secret_stored() {
  inside 'export RESTIC_REPOSITORY=/var/backups/gitlab RESTIC_PASSWORD_FILE=/etc/gitlab-backup/repository.password; secret=$(cat /srv/secret); touch /srv/dumped
    for s in $(restic --no-cache snapshots --json | python3 -c "import json,sys; print(*[s[\"id\"] for s in json.load(sys.stdin)])"); do
      grep -q "^$s$" /srv/dumped && continue
      restic --no-cache -q dump "$s" / 2>/dev/null | grep -aF -- "$secret" >/dev/null && exit 1
      echo "$s" >> /srv/dumped
    done; exit 0' || fail "$1: a secret of root's is in the repository"
}
# bounded SECONDS CMD: CMD must end in that time, whether it succeeds or fails. Its output is in
# /srv/out.
bounded() {
  local code=0
  inside "timeout -k 5 $1 bash -c $(printf %q "$2") > /srv/out 2>&1" || code=$?
  [ $code != 124 ] && [ $code != 137 ] || fail "not over after $1 s: $2: $(inside 'tail -3 /srv/out')"
  return 0
}
settled() { wait_for 90 'everything to end' '! systemctl is-active gitlab-backup-run.service gitlab-backup-restore-run.service gitlab-backup-staging.service gitlab-backup-restore-staging.service | grep -qvE "^(inactive|failed)"'; }
# HOSTILE_COUNT is for a program that fails these tests: each failure is printed, and the next
# attack starts from the changed state.
if [ -n "${HOSTILE_COUNT:-}" ]; then
  set +e
  trap - ERR
  fail() {
    echo "BROKEN: $*" | head -3 | cut -c1-250
    inside 'systemctl stop attack; systemctl kill -s KILL gitlab-backup-run.service gitlab-backup-restore-run.service; systemctl stop gitlab-backup.target gitlab-backup-restore.target; sleep 1; journalctl --rotate --vacuum-time=1s; rm -f /srv/out*
      '"$STATE_OF_ROOT"' > /srv/root-before' >/dev/null 2>&1
  }
fi
