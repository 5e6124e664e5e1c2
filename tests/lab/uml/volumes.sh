# Shared by the scenarios with logical volumes; it sources its own machine.
source "$LAB/lib.sh"
source "$LAB/uml/machine.sh"

# volumes NAME: boots a machine with the volume group vg: the volume classic, and the volume thin in
# a pool
volumes() {
  boot "$1"
  bring "$LAB/uml/move-to" "$LAB/outage" "$LAB/way-of-2015" "$LAB/bench-data"
  inside 'set -e; vgcreate -qq vg /dev/ubdb; lvcreate -qq --type thin-pool -n pool -L 2G vg; lvcreate -qq -V 1500M --thinpool pool -n thin vg; lvcreate -qq -n classic -L 1G vg
    mkfs.xfs -q /dev/vg/thin; mkfs.ext4 -q /dev/vg/classic'
  configure >/dev/null
}

# The logical volumes other than these two and the pool.
snapshots() { inside 'lvs --noheadings -o lv_name vg' | tr -d ' ' | grep -vxE 'pool|thin|classic' | paste -sd ' '; }
runs() { inside 'gitlab-backup run' || fail "$1"; [ "$(snapshots)" = "${2:-}" ] || fail "$1: these snapshots are there: $(snapshots)"; }

# begins UNIT: starts a backup and returns when UNIT runs. Everything is slow here.
begins() {
  inside 'gitlab-backup run --no-wait' || fail "cannot start"
  wait_for 300 "$1 to be at work" "systemctl is-active $1 | grep -qE '^(active|activating)'"
}

# ended: the run is over, GitLab is back, and no snapshot is left.
ended() {
  wait_for 900 'the run to end' '! systemctl is-active -q gitlab-backup-run.service && ! systemctl is-active -q gitlab-backup-fssnapshot.service && ! systemctl is-active -q gitlab-backup-staging.service && ! test -e /var/lib/gitlab-backup/staging'
  gitlab_is_back 300
  [ -z "$(snapshots)" ] || fail "left: $(snapshots)"
}
