# Separate file systems for GitLab's data; sourced after machine.sh.
#
#   volume KIND MEGABYTES [NUMBER]   creates one (btrfs, xfs, ext4) on a loop device and mounts it
#                                    at /srv/vNUMBER, also after a reboot
#   move_to PATH VOLUME              moves GitLab's PATH to it; on btrfs to a subvolume of its own
LOOPS=()

volume() {
  local kind=$1 number=${3:-0} image loop
  image=$M/volume$number
  truncate -s "${2}M" "$image"
  case $kind in
    btrfs) mkfs.btrfs -q "$image" ;;
    xfs) mkfs.xfs -q -m reflink=1 "$image" ;;
    ext4) mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$image" ;;
  esac
  loop=$(losetup --show -f "$image")
  LOOPS+=("$loop")
  mkdir -p "$M/root/etc/lab-volumes"
  echo "mkdir -p /srv/v$number; [ -b $loop ] || mknod $loop b 7 ${loop#/dev/loop}; mount -t $kind $loop /srv/v$number" > "$M/root/etc/lab-volumes/$number"
  cat > "$M/root/etc/systemd/system/lab-volumes.service" <<'END'
[Unit]
Before=standin-setup.service gitlab-gitaly.service gitlab-puma.service gitlab-sidekiq.service gitlab-workhorse.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for v in /etc/lab-volumes/*; do sh -e $v; done'
[Install]
RequiredBy=standin-setup.service
END
  inside "sh -e /etc/lab-volumes/$number; systemctl daemon-reload; systemctl -q enable lab-volumes" || fail "cannot mount $kind"
}

move_to() {
  inside "systemctl stop gitlab.target 'gitlab-*.service'; set -e
    if btrfs subvolume show $2 >/dev/null 2>&1; then btrfs -q subvolume create $2/moved; else mkdir $2/moved; fi
    chown git:git $2/moved; cp -a $1/. $2/moved/; rm -rf $1; mkdir $1
    echo 'mount --bind $2/moved $1' >> /etc/lab-volumes/${2#/srv/v}; mount --bind $2/moved $1; systemctl start gitlab.target" || fail "cannot move $1"
  wait_for 30 'GitLab to answer' "$ANSWERS"
}

# Detaches only loop devices that were attached here.
detach() { for loop in "${LOOPS[@]}"; do losetup -d "$loop" 2>/dev/null || true; done; }
trap 'power_off; detach' EXIT
