# A booted systemd from the lab's root file system; sourced. Only what is started here is ended here.
#
#   boot NAME [ROOTFS]   boots a machine of its own overlay; sets M (its directory) and LEADER
#   inside CMD           runs a shell command in it
#   reboot               ends it and boots it again
#   power_off            ends it and removes what it left
set -euo pipefail
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# LAB_PROGRAM: another one, such as an older one that must fail.
PROGRAM=${LAB_PROGRAM:-$LAB/../../target/release/gitlab-backup}
NO_CLOCK=/usr/lib/systemd/system/gitlab-backup-run.timer.d
# A command that fails and says nothing ends a scenario too.
trap 'echo "why: ended with $? at line $LINENO: ${BASH_COMMAND:0:200}" >&2' ERR

boot() {
  prepare_machine "$1-$$" "${2:-rootfs}"
  trap power_off EXIT
  start
  wait_for 30 'GitLab to answer' 'curl -fsS http://127.0.0.1:8080/-/readiness'
}

# prepare_machine NAME ROOTFS: a root directory in $M/root, which is not yet booted.
prepare_machine() {
  local root
  root=$("$LAB/rootfs" "$2")
  NAME=$1
  M=$(cd "$root/.." && pwd)/run/$NAME
  mkdir -p "$M/upper" "$M/work" "$M/root"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$M/upper,workdir=$M/work" "$M/root"
  install_program
  # Who looks at what others made, and who loads it; an installation makes them.
  local account
  for account in gitlab-backup-sandbox gitlab-backup-loader; do
    grep -q "^$account:" "$M/root/etc/passwd" || chroot "$M/root" useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin "$account"
  done
  # The clock is the host's: at 02:30 of it every machine would begin a run of its own, in the middle of whatever is tried.
  mkdir -p "$M/root/$NO_CLOCK"
  printf '[Timer]\nOnCalendar=\nOnCalendar=2099-01-01\n' > "$M/root/$NO_CLOCK/lab.conf"
}

install_program() { install -m 755 "$PROGRAM" "$M/root/usr/local/bin/gitlab-backup"; }

start() {
  # A control group of its own: two containers in one would share theirs.
  setsid bash -c '
    for h in systemd unified; do d=/sys/fs/cgroup/$h/lab-$1; [ -d /sys/fs/cgroup/$h ] || continue; mkdir -p $d; echo $$ > $d/cgroup.procs; done
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    exec systemd-nspawn -q -D "$2" -b --register=no --keep-unit -M "$1" --private-network --console=pipe </dev/null' _ "$NAME" "$M/root" >> "$M/console" 2>&1 &
  NSPAWN=$!
  echo $NSPAWN > "$M/nspawn"
  for _ in $(seq 300); do
    LEADER=$(pgrep -P "$NSPAWN" 2>/dev/null | head -1 || true)
    if [ -n "$LEADER" ] && inside 'systemctl is-system-running --wait' >/dev/null 2>&1; then break; fi
    [ -n "$LEADER" ] && inside 'systemctl is-system-running' 2>/dev/null | grep -qE 'running|degraded' && break
    sleep 0.1
  done
  [ -n "$LEADER" ] || { cat "$M/console"; echo "the machine does not boot"; return 1; }
}

inside() { nsenter -t "$LEADER" -a bash -c "$1"; }

# wait_for SECONDS WHAT CMD
wait_for() {
  local end=$((SECONDS + $1))
  until inside "$3" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "waited $1 s in vain for $2"
      inside 'systemctl --failed --no-legend; journalctl -n 40 --no-pager -o cat' || true
      return 1
    fi
    sleep 0.1
  done
}

reboot() {
  halt
  start
}

halt() {
  if [ -n "${LEADER:-}" ]; then kill -s RTMIN+4 "$LEADER" 2>/dev/null || true; fi
  for _ in $(seq 300); do kill -0 "$NSPAWN" 2>/dev/null || break; sleep 0.1; done
  # What is in it may outlive nspawn, and would go on in the directories of the machine that boots next.
  kill -KILL "$NSPAWN" ${LEADER:+"$LEADER"} 2>/dev/null || true
  while [ -n "${LEADER:-}" ] && kill -0 "$LEADER" 2>/dev/null; do sleep 0.1; done
  wait "$NSPAWN" 2>/dev/null || true
}

power_off() {
  trap - EXIT
  halt
  umount "$M/root" 2>/dev/null || umount -l "$M/root" || true
  for h in systemd unified; do
    [ -d "/sys/fs/cgroup/$h/lab-$NAME" ] && find "/sys/fs/cgroup/$h/lab-$NAME" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
  [ -n "${LAB_KEEP:-}" ] || rm -rf "$M"
}

# configure: a configuration for the stand-in, and the units
configure() {
  inside 'mkdir -p /etc/gitlab-backup; cat > /etc/gitlab-backup/config.toml <<END
[gitlab]
readiness-url = "http://127.0.0.1:8080/-/readiness"
max-downtime = "'"${MAX_DOWNTIME:-30min}"'"
stop-grace = "3s"
[[redis]]
name = "main"
url = "unix:///run/redis/redis-server.sock"
[files]
paths = ["/home/git/repositories", "/home/git/gitlab/public/uploads", "/home/git/gitlab/config"]
[postgresql]
databases = ["gitlabhq_production", "gitlabhq_registry"]
END
'"gitlab-backup install $*"
}
