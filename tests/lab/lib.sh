# Shared by the scenarios; sourced after machine.sh.
RUNNING='gitlab.target gitlab-puma.service gitlab-sidekiq.service gitlab-workhorse.service gitlab-gitaly.service'
ANSWERS='curl -fsS -m 2 http://127.0.0.1:8080/-/readiness'

# said_by_status [--json]: prints the status. Exit code 3 reports a problem and is not a failure of
# the command.
said_by_status() { inside "gitlab-backup status $*" || [ $? = 3 ]; }

# fail WORDS: also prints what the program reports about the last run, restore and verify, because
# the journal may be lost, or too long to search.
fail() {
  echo "FAIL: $*"
  said_by_status 2>&1 | grep -E '^(WRONG|now|last|restore|verify|DOWN):' | sed 's/^/why: /' | cut -c1-400 > "$M/why" || true
  cat "$M/why"
  # The last log lines of the unit that the run names.
  for unit in $(grep -oE '^why: last:.*journalctl -u [^ )]+' "$M/why" | sed 's/.* //'); do inside "journalctl -n 6 -o cat -u $unit" 2>&1 | cut -c1-300 | sed 's/^/why:     /' || true; done
  inside 'journalctl -n 60 --no-pager -o short-monotonic -u "gitlab*"' || true
  exit 1
}

# gitlab_is_back SECONDS: GitLab answers, units that ran before are up, and others are not.
gitlab_is_back() {
  wait_for "$1" "GitLab to be back" "systemctl is-active $RUNNING && $ANSWERS && ! test -e /run/gitlab-backup/paused.json" || fail "GitLab is not back"
  ! inside 'systemctl is-active -q gitlab-mailroom' || fail "gitlab-mailroom did not run before"
}

# last_start: prints the invocation of the newest start of a run, also of one that ended at once.
last_start() { inside 'systemctl show -P InvocationID gitlab-backup-run.service'; }

# ended_in_order UNIT...: in the last window the units went down one after the other.
ended_in_order() {
  inside 'last=0; for unit in '"$*"'; do at=$(systemctl show -P InactiveEnterTimestampMonotonic "$unit"); echo "$unit $at"; [ "$at" -gt "$last" ] || exit 1; last=$at; done' || fail "they were not stopped in this order: $*"
}

complete_runs() { inside 'gitlab-backup list --json' | grep -c '"complete": true' || true; }

# clean_and_next COUNT: the run left nothing behind, COUNT complete runs are listed, and the next
# run is complete.
clean_and_next() {
  wait_for 20 'the run to end' '! systemctl is-active -q gitlab-backup-run.service && ! systemctl is-active -q gitlab-backup-staging.service && ! systemctl is-active -q gitlab-backup-pgsnapshot.service && ! test -e /var/lib/gitlab-backup/staging' || fail "something is left behind"
  inside '! systemctl list-units --plain --no-legend "gitlab-backup-stop-of-*" | grep .' || fail "what notices stops is left behind"
  [ "$(complete_runs)" = "$1" ] || fail "$(complete_runs) complete runs are listed, not $1"
  inside 'gitlab-backup run' || fail "the next run fails"
  [ "$(complete_runs)" = $(($1 + 1)) ] || fail "the next run is not listed"
}

# load [COUNT [PAUSE]]: COUNT clients push until unload, with PAUSE seconds between two pushes.
load() { inside "for i in \$(seq ${1:-3}); do systemd-run -q --collect --unit=load\$i bash -c 'while :; do curl -s -m 5 -X POST http://127.0.0.1:8080/push >/dev/null; sleep ${2:-0.1}; done'; done"; }
unload() { inside 'systemctl stop "load[0-9].service"'; }

# backup_under_load WHAT [ARGUMENTS OF load]
backup_under_load() {
  load "${@:2}"
  inside 'sleep 1; gitlab-backup run' || fail "$1"
  unload
}

# by_restic: extracts the newest run to /srv/restored as the README describes: with restic restore,
# by the snapshots that show prints.
by_restic() {
  inside 'set -e; export RESTIC_REPOSITORY=/var/backups/gitlab RESTIC_PASSWORD_FILE=/etc/gitlab-backup/repository.password
    rm -rf /srv/restored; mkdir -p /srv/restored; run=$(gitlab-backup list | tail -1 | cut -d" " -f1)
    for s in $(gitlab-backup show $run --json | sed -n "s/.*\"snapshot\": \"\(.*\)\".*/\1/p"); do restic --no-cache -q restore $s --target /srv/restored; done' || fail "restic cannot restore the run"
}

# counted WHAT: the extracted run contains pushes, and its stores agree with each other, according
# to tools other than this program.
AGREE=standin-agree
counted() {
  local out
  out=$(inside "$AGREE /srv/restored /srv/restored/var/lib/gitlab-backup/staging/postgresql /srv/restored/var/lib/gitlab-backup/staging/redis/main.rdb") || fail "$1 cannot be counted"
  echo "$out"
  [[ $out == *'"disagreements": 0'* ]] || fail "$1 disagrees with itself"
  [[ $out != *'"pushes": 0'* ]] || fail "nothing was pushed"
}

# agrees WHAT: by_restic and counted, for the newest run.
agrees() {
  by_restic
  counted "$1"
}

# start_and_wait UNIT: starts a backup and returns when UNIT runs.
start_and_wait() {
  inside 'gitlab-backup run --no-wait' || fail "cannot start"
  local end=$((SECONDS + 90))
  until inside "systemctl is-active $1 | grep -qE '^(active|activating)'"; do [ $SECONDS -lt $end ] || fail "$1 never ran"; sleep 0.05; done
}

# kill_at_work UNIT: sends SIGKILL to its main process during a run. $missed counts the runs that
# ended too early for that.
kill_at_work() {
  missed=0
  until inside "gitlab-backup run --no-wait || exit 1; i=0
    until systemctl kill -s KILL --kill-whom=main $1 2>/dev/null; do [ \$((++i % 9)) != 0 ] || [ -n \"\$(systemctl show -P Job gitlab-backup-run.service)\" ] || exit 1; done"; do
    missed=$((missed + 1))
    [ $missed -lt 5 ] || fail "$1 was never seen at work"
    wait_for 60 'the run to end' '! test -e /var/lib/gitlab-backup/staging'
  done
}

# slow SECONDS: configures a step of that length in the window; with '' removes it.
slow() { inside "sed -i '/^\[\[step\]\]/,\$d' /etc/gitlab-backup/config.toml; [ -z '$1' ] || printf '[[step]]\nname = \"slow\"\nstage = \"window\"\ncommand = [\"/bin/sleep\", \"$1\"]\n' >> /etc/gitlab-backup/config.toml; timeout 120 gitlab-backup install --wait" >/dev/null; }

# LAB_CASES=all: a scenario runs in its long form, with every variant, as often as its first lines
# say.
case " ${LAB_CASES:-} " in *' all '*) AT_LENGTH=yes ;; *) AT_LENGTH= ;; esac
at_length() { [ -n "$AT_LENGTH" ]; }
# some COUNT VARIANT...: sets SOME to the first COUNT variants; in the long form to all.
some() {
  SOME=("${@:2}")
  at_length || SOME=("${@:2:$1}")
}
# chosen PART...: prints the parts of a scenario to run: those that LAB_CASES names, or these if it
# names none.
chosen() {
  local names=" ${LAB_CASES:-} "
  names=${names/ all / }
  [ -n "${names// /}" ] || names=$*
  echo $names
}
