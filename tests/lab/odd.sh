# What the shell of an odd host (tests/lab/hosts) has; sourced inside the machine.
set -euo pipefail
# A directory of GitLab's account in a saved path, made for each host and removed after it.
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
# in_config SECTION LINE: adds it to that section.
in_config() {
  grep -q "^\[$1\]" $CONFIG || printf '[%s]\n' "$1" >> $CONFIG
  SECTION="[$1]" LINE=$2 awk '{ print } $0 == ENVIRON["SECTION"] { print ENVIRON["LINE"] }' $CONFIG > /srv/odd/config
  cat /srv/odd/config > $CONFIG
}
# all_databases: none is named in the configuration.
all_databases() { sed -i '/^databases = /d' $CONFIG; }
# databases NAME: that one alone, which is faster.
databases() { sed -i "s|^databases = .*|databases = [\"$1\"]|" $CONFIG; }
# more_paths 'PATH'...: beside those that are there; as TOML has it in '…'.
more_paths() {
  local path
  for path in "$@"; do
    MORE="'$path', " awk '/^paths = \[/ { $0 = "paths = [" ENVIRON["MORE"] substr($0, 10) } { print }' $CONFIG > /srv/odd/config
    cat /srv/odd/config > $CONFIG
  done
}
# own_repository: another one than the other hosts', opened by the password in $PASSWORD.
own_repository() { printf '[repository]\nlocation = "/srv/odd-repository"\npassword-file = "%s"\n' $PASSWORD >> $CONFIG; }
# by_restic FILE: plain restic opens it with that password, and finds the run's parts.
by_restic() { restic --no-cache -q -r /srv/odd-repository --password-file "$1" snapshots | grep >/dev/null part=manifest; }
# second 'LINE'...: a second Redis, with these lines in its configuration, which listens at $SECOND and is in the configuration by second_in_config.
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
# main_redis 'LINE'...: the same of GitLab's own, which is started again.
main_redis() { printf '%s\n' "$@" >> /etc/redis/redis.conf; systemctl restart redis-server; answers; }
# On an ordinary host nothing of it is left: databases, roles, mounts, keys, units, files.
ordinary() {
  sql -c "SELECT 'database', datname FROM pg_database UNION SELECT 'role', rolname FROM pg_roles UNION SELECT 'tablespace', spcname FROM pg_tablespace ORDER BY 1, 2"
  for database in gitlabhq_production gitlabhq_registry; do sql -d $database -c "SELECT '$database', nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname !~ '^pg_|information_schema' AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S') ORDER BY 1, 2, 3"; done
  findmnt -rno TARGET | grep -E '^/(home|srv|etc|var)' | sort || true
  redis dbsize
  sort /etc/redis/redis.conf
  ls -A /srv /home/git /home/git/repositories /etc/systemd/system /etc/gitlab-backup /var/lib/gitlab-backup | grep -vE '^(verified.json|drilled.json|newest.json|manifests|restore|restored)$'
}
