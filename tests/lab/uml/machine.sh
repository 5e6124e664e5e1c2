# The lab's machine with a kernel of its own, user-mode-linux, which has device-mapper; sourced
# after machine.sh, with the same functions. $M/host is /host in the machine. Forks are slow there.
#
#   power_fails          ends it as if the power failed
#   bring FILE...        installs programs in it
UML=$LAB/uml

boot() {
  local name=$1-$$ image
  image=$("$UML/image")
  M=$(dirname "$image")/run/$name
  NAME=$name
  mkdir -p "$M/host"
  trap power_off EXIT
  DISKS=("ubd0=$M/root.cow,$image" "ubd1=$M/volumes")
  # For a volume group.
  truncate -s "${VOLUMES:-6G}" "$M/volumes"
  start
  bring "$PROGRAM"
  wait_for 60 'GitLab to answer' 'curl -fsS http://127.0.0.1:8080/-/readiness'
}

start() {
  rm -rf "$M/host/jobs"
  mkdir "$M/host/jobs"
  # Its memory is a file, which should not be on a disk. It has its own session, so that it can be
  # ended with all its processes.
  TMPDIR=/dev/shm setsid linux.uml "mem=${MEMORY:-1024M}" "${DISKS[@]}" root=/dev/ubda rw "hostfs=$M/host" "uml_dir=$M" umid=uml \
    con=null con0=null,fd:1 quiet systemd.show_status=no < /dev/null >> "$M/console" 2>&1 &
  KERNEL=$!
  inside 'systemctl is-system-running --wait; true' > /dev/null || { cat "$M/console"; echo "the machine does not boot"; return 1; }
}

inside() {
  local job n=1
  job=$(mktemp "$M/host/new.XXXXXX")
  echo "$1" > "$job"
  if [ -e "$M/host/jobs/last" ]; then n=$(($(< "$M/host/jobs/last") + 1)); fi
  # Two callers may want the same number.
  until ln "$job" "$M/host/jobs/$n" 2>/dev/null; do n=$((n + 1)); done
  echo "$n" > "$M/host/jobs/last"
  rm "$job"
  until [ -s "$M/host/jobs/$n.rc" ]; do
    kill -0 "$KERNEL" 2>/dev/null || { echo "the machine is off" >&2; return 1; }
    sleep 0.03
  done
  cat "$M/host/jobs/$n.err" >&2
  cat "$M/host/jobs/$n.out"
  return "$(< "$M/host/jobs/$n.rc")"
}

bring() {
  cp "$@" "$M/host/"
  inside 'for file in '"$(printf ' %q' "${@##*/}")"'; do install -m 755 "/host/$file" /usr/local/bin/; done'
}

power_fails() {
  kill -KILL -- "-$KERNEL" 2>/dev/null || true
  wait "$KERNEL" 2>/dev/null || true
}

halt() {
  inside 'systemctl --no-block poweroff' 2>/dev/null || true
  for _ in $(seq 600); do kill -0 "$KERNEL" 2>/dev/null || break; sleep 0.1; done
  power_fails
}

power_off() {
  trap - EXIT
  # A clean shutdown is not needed: its disks are removed.
  power_fails
  [ -n "${LAB_KEEP:-}" ] || rm -rf "$M"
}
