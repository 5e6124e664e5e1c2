# The variables and functions of the odd hosts' shell code (tests/lab/hosts); sourced inside the
# machine.
set -euo pipefail
# A directory of GitLab's account in a saved path, created for each host and removed after it.
O=/home/git/repositories/odd
CONFIG=/etc/gitlab-backup/config.toml
PASSWORD=/etc/gitlab-backup/odd.password
MAIN=/run/redis/redis-server.sock
SECOND=/srv/second/socket
cd /

as_git() { runuser -u git -- bash -euc "cd $O; $1"; }
sql() { runuser -u postgres -- psql -XAtqv ON_ERROR_STOP=1 "$@"; }
redis() { redis-cli -e -s $MAIN "$@"; }
until_true() { for _ in $(seq 100); do eval "$1" >/dev/null 2>&1 && return; sleep 0.1; done; echo "in vain: $1" >&2; return 1; }
answers() { until_true 'curl -fsS -m 2 http://127.0.0.1:8080/-/readiness'; }
# in_config SECTION LINE: adds LINE to that section.
in_config() {
  grep -q "^\[$1\]" $CONFIG || printf '[%s]\n' "$1" >> $CONFIG
  SECTION="[$1]" LINE=$2 awk '{ print } $0 == ENVIRON["SECTION"] { print ENVIRON["LINE"] }' $CONFIG > /srv/odd/config
  cat /srv/odd/config > $CONFIG
}
# all_databases: removes the list of databases from the configuration, so that all are saved.
all_databases() { sed -i '/^databases = /d' $CONFIG; }
# databases NAME: configures only that database, which is faster.
databases() { sed -i "s|^databases = .*|databases = [\"$1\"]|" $CONFIG; }
# more_paths 'PATH'...: adds paths to [files] paths; each is written as TOML's '...'.
more_paths() {
  local path
  for path in "$@"; do
    MORE="'$path', " awk '/^paths = \[/ { $0 = "paths = [" ENVIRON["MORE"] substr($0, 10) } { print }' $CONFIG > /srv/odd/config
    cat /srv/odd/config > $CONFIG
  done
}
# own_repository: configures a separate repository, with the password file $PASSWORD.
own_repository() { printf '[repository]\nlocation = "/srv/odd-repository"\npassword-file = "%s"\n' $PASSWORD >> $CONFIG; }
# by_restic FILE: plain restic opens that repository with this password file, and finds the run's
# manifest.
by_restic() { restic --no-cache -q -r /srv/odd-repository --password-file "$1" snapshots | grep >/dev/null part=manifest; }
# second 'LINE'...: starts a second Redis at $SECOND, with these lines in its redis.conf;
# second_in_config adds it to the backup's configuration.
second() {
  install -d -o redis -g redis -m 750 /srv/second
  printf '%s\n' 'port 0' "unixsocket $SECOND" 'unixsocketperm 777' 'dir /srv/second' "$@" > /srv/second/redis.conf
  chown redis: /srv/second/redis.conf
  printf '[Service]\nUser=redis\nExecStart=/usr/bin/redis-server /srv/second/redis.conf\n' > /etc/systemd/system/odd-redis.service
  systemctl daemon-reload
  systemctl start odd-redis
  until_true "redis-cli -s $SECOND ping | grep -E 'PONG|NOAUTH'"
}
second_in_config() { printf '[[redis]]\nname = "second"\nurl = "unix://%s"\n' $SECOND >> $CONFIG; local line; for line in "$@"; do echo "$line" >> $CONFIG; done; }
no_second() { systemctl stop odd-redis; rm -rf /srv/second /etc/systemd/system/odd-redis.service; systemctl daemon-reload; }
# main_redis 'LINE'...: adds these lines to the redis.conf of GitLab's own Redis, and restarts it.
main_redis() { printf '%s\n' "$@" >> /etc/redis/redis.conf; systemctl restart redis-server; answers; }
# ordinary: prints the databases, roles, mounts, keys, units and files, which must be the same after
# each odd host.
ordinary() {
  sql -c "SELECT 'database', datname FROM pg_database UNION SELECT 'role', rolname FROM pg_roles UNION SELECT 'tablespace', spcname FROM pg_tablespace ORDER BY 1, 2"
  for database in gitlabhq_production gitlabhq_registry; do sql -d $database -c "SELECT '$database', nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname !~ '^pg_|information_schema' AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S') ORDER BY 1, 2, 3"; done
  findmnt -rno TARGET | grep -E '^/(home|srv|etc|var)' | sort || true
  redis dbsize
  sort /etc/redis/redis.conf
  ls -A /srv /home/git /home/git/repositories /etc/systemd/system /etc/gitlab-backup /var/lib/gitlab-backup | grep -vE '^(verified.json|drilled.json|newest.json|manifests|restore|restored)$'
}
