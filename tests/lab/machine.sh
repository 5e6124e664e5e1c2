# Boots systemd from the lab's root file system; sourced. It ends only processes that it started.
#
#   boot NAME [ROOTFS]   boots a machine on its own overlay; sets M (its directory) and LEADER
#   inside CMD           runs a shell command in it
#   reboot               ends it and boots it again
#   power_off            ends it and removes its files
set -euo pipefail
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# LAB_PROGRAM: another program, such as an older one with which a test must fail.
PROGRAM=${LAB_PROGRAM:-$LAB/../../target/release/gitlab-backup}
NO_CLOCK=/usr/lib/systemd/system/gitlab-backup-run.timer.d
# A command that fails without a message also ends a scenario.
trap 'echo "why: ended with $? at line $LINENO: ${BASH_COMMAND:0:200}" >&2' ERR

boot() {
  prepare_machine "$1-$$" "${2:-rootfs}"
  trap power_off EXIT
  start
  wait_for 30 'GitLab to answer' 'curl -fsS http://127.0.0.1:8080/-/readiness'
}

# prepare_machine NAME ROOTFS: prepares the root directory $M/root, but does not boot it.
prepare_machine() {
  local root
  root=$("$LAB/rootfs" "$2")
  NAME=$1
  M=$(cd "$root/.." && pwd)/run/$NAME
  mkdir -p "$M/upper" "$M/work" "$M/root"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$M/upper,workdir=$M/work" "$M/root"
  install_program
  # The accounts that examine and load untrusted data; an installation creates them.
  local account
  for account in gitlab-backup-sandbox gitlab-backup-loader; do
    grep -q "^$account:" "$M/root/etc/passwd" || chroot "$M/root" useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin "$account"
  done
  # The machine has the host's clock: at 02:30 its timer would start a run in the middle of a test.
  mkdir -p "$M/root/$NO_CLOCK"
  printf '[Timer]\nOnCalendar=\nOnCalendar=2099-01-01\n' > "$M/root/$NO_CLOCK/lab.conf"
}

install_program() { install -m 755 "$PROGRAM" "$M/root/usr/local/bin/gitlab-backup"; }

start() {
  # Each machine has its own control group: two containers in one would share their groups.
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
  # Processes of the machine may outlive nspawn, and would continue in the directories of the next
  # machine.
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

# configure [ARGUMENT of install]...: writes a configuration for the stand-in, and installs the
# units.
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
