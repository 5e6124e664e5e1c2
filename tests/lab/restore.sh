# Shared by scenarios of restores; sourced after lib.sh.
# They stop Sidekiq where they compare states, because it processes its queue as soon as it runs.
RUNNING='gitlab.target gitlab-puma.service gitlab-workhorse.service gitlab-gitaly.service'
STATE='state /home/git/repositories /home/git/gitlab/public/uploads'

# prepare: writes a configuration with a step in the window that records the state of the stores,
# which a restore must bring back.
prepare() {
  configure >/dev/null
  install -m 755 "$LAB/state" "$M/root/usr/local/bin/"
  cat > "$M/root/srv/prepare" <<'PREPARE'
set -e
# Kinds of files that GitLab has, or may have.
cd /home/git/repositories/p0.git
ln config hard
ln -s HEAD symbolic
truncate -s 3M sparse
mkdir 'odd $HOME %n é'
python3 -c 'import os; os.setxattr("config", "user.note", b"kept")'
chown -R -h git:git .
chmod 2770 refs
touch -d 2001-02-03T04:05:06.7 HEAD
sed -i '/^\[files\]/a configuration = ["/home/git/gitlab/config"]' /etc/gitlab-backup/config.toml
runuser -u postgres -- psql -qc 'ALTER DATABASE gitlabhq_production SET work_mem = 12345' -c 'GRANT CONNECT ON DATABASE gitlabhq_production TO pg_monitor'
cat >> /etc/gitlab-backup/config.toml <<'X'
[[step]]
name = "reference"
stage = "window"
command = ["/bin/sh", "-c", "state /home/git/repositories /home/git/gitlab/public/uploads > /srv/reference"]
X
gitlab-backup install
PREPARE
  inside 'bash /srv/prepare' >/dev/null || fail "cannot prepare"
}

# wreck: deletes the databases, Redis' keys and the files.
wreck() {
  inside 'for d in gitlabhq_production gitlabhq_registry; do runuser -u postgres -- dropdb --force $d; done
    redis-cli -s /run/redis/redis-server.sock flushall >/dev/null; rm -rf /home/git/repositories /home/git/gitlab/public/uploads'
}

# as_it_was [FILE]: the state is that of the capture, or that in FILE.
as_it_was() {
  inside "$STATE > /srv/now; diff ${1:-/srv/reference} /srv/now | head -20; cmp -s ${1:-/srv/reference} /srv/now"
}

# nothing_is_left: a restore has ended and left nothing behind.
nothing_is_left() {
  wait_for 20 'the end' '! systemctl is-active gitlab-backup-restore-staging.service gitlab-backup-staging.service | grep -vE "^(inactive|failed)"'
  inside '! ls -d /home/.gitlab-backup-* /home/git/.gitlab-backup-* /home/git/*/.gitlab-backup-* /home/git/gitlab/public/.gitlab-backup-* /var/lib/redis/.gitlab-backup-* 2>/dev/null
    ! runuser -u postgres -- psql -Atc "SELECT datname FROM pg_database" | grep -E "_(restored|replaced)_"
    ! test -e /var/lib/gitlab-backup/restore/journal.json && ! test -e /var/lib/gitlab-backup/staging' || fail "something is left beside"
}

# untouched: nothing was replaced, and GitLab is back with its old data.
untouched() {
  gitlab_is_back 20
  nothing_is_left
  as_it_was /srv/old || fail "what was there has changed"
  [ "$(said_by_status --json | grep -c '"half_restored": null')" = 1 ] || fail "status takes it for half restored"
}

# new_old: writes data that is not in the run, and that a failed restore must keep.
new_old() { inside "systemctl start gitlab.target; for i in 1 2 3; do curl -fsS -X POST http://127.0.0.1:8080/push >/dev/null; done; sleep 1; systemctl stop gitlab-sidekiq; $STATE > /srv/old"; }
