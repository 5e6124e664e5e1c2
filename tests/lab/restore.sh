# What scenarios of restores share; sourced after lib.sh.
STATE='state /home/git/repositories /home/git/gitlab/public/uploads'

# A configuration with a step in the window that tells the state of the stores: what a restore has to bring back.
prepare() {
  configure >/dev/null
  install -m 755 "$LAB/state" "$M/root/usr/local/bin/"
  cat > "$M/root/srv/prepare" <<'PREPARE'
set -e
# Kinds of files that GitLab has, and some that it may.
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

# wreck: what an admin sees at 3 a.m.
wreck() {
  inside 'for d in gitlabhq_production gitlabhq_registry; do runuser -u postgres -- dropdb --force $d; done
    redis-cli -s /run/redis/redis-server.sock flushall >/dev/null; rm -rf /home/git/repositories /home/git/gitlab/public/uploads'
}

# as_it_was [FILE]: the state now is that at the capture, or that in FILE.
as_it_was() {
  inside "$STATE > /srv/now; diff ${1:-/srv/reference} /srv/now | head -20; cmp -s ${1:-/srv/reference} /srv/now"
}

# A restore that is over left nothing beside.
nothing_is_left() {
  wait_for 20 'the end' '! systemctl is-active gitlab-backup-restore-staging.service gitlab-backup-staging.service | grep -vE "^(inactive|failed)"'
  inside '! ls -d /home/git/.gitlab-backup-* /home/git/*/.gitlab-backup-* /home/git/gitlab/public/.gitlab-backup-* /var/lib/redis/.gitlab-backup-* 2>/dev/null
    ! runuser -u postgres -- psql -Atc "SELECT datname FROM pg_database" | grep -E "_(restored|replaced)_"
    ! test -e /var/lib/gitlab-backup/restore/journal.json && ! test -e /var/lib/gitlab-backup/staging' || fail "something is left beside"
}
