# A real Zabbix in a scenario's machine; sourced after lib.sh.
ZABBIX=http://127.0.0.1:8088/api_jsonrpc.php

# zabbix_up: sets up database, server and frontend from Debian's packages, a host, and a token in
# /etc/gitlab-backup/zabbix.token.
zabbix_up() {
  install -m 755 "$LAB/zabbix" "$LAB/recorder" "$M/root/usr/local/bin/"
  inside 'mkdir -p /etc/gitlab-backup; gitlab-backup generate --zabbix-template > /srv/template.yaml' || fail "there is no template"
  inside 'set -e
    runuser -u postgres -- createuser zabbix; runuser -u postgres -- createdb -O zabbix -E UTF8 -T template0 zabbix
    for part in schema images data; do zcat /usr/share/zabbix-server-pgsql/$part.sql.gz; done | PGOPTIONS="-c synchronous_commit=off" runuser -u zabbix -- psql -qv ON_ERROR_STOP=1 zabbix >/dev/null
    printf "DBHost=\nDBName=zabbix\nDBUser=zabbix\nLogType=console\nSocketDir=/run/zabbix\nPidFile=/run/zabbix/zabbix_server.pid\nCacheUpdateFrequency=5\n" > /etc/zabbix/zabbix_server.conf
    cat > /etc/zabbix/zabbix.conf.php <<END
<?php
\$DB = ["TYPE" => "POSTGRESQL", "SERVER" => "", "PORT" => "0", "DATABASE" => "zabbix", "USER" => "zabbix", "PASSWORD" => "", "SCHEMA" => "", "ENCRYPTION" => false, "DOUBLE_IEEE754" => true];
\$ZBX_SERVER = "127.0.0.1"; \$ZBX_SERVER_PORT = "10051"; \$ZBX_SERVER_NAME = "lab"; \$IMAGE_FORMAT_DEFAULT = IMAGE_FORMAT_PNG;
END' || fail "Zabbix cannot be set up"
  zabbix_start
  inside 'zabbix setup /srv/template.yaml > /etc/gitlab-backup/zabbix.token && chmod 600 /etc/gitlab-backup/zabbix.token' || fail "Zabbix cannot be set up"
  # The server sees new items only after a restart.
  zabbix_restart
}

zabbix_start() {
  inside 'mkdir -p /run/zabbix; chown zabbix: /run/zabbix; systemctl start zabbix-server
    systemd-run -q --unit=frontend -p User=zabbix php -S 127.0.0.1:8088 -t /usr/share/zabbix' || fail "Zabbix does not start"
  wait_for 30 "Zabbix' API" "curl -fsS -H 'Content-Type: application/json-rpc' -d '{\"jsonrpc\":\"2.0\",\"method\":\"apiinfo.version\",\"params\":{},\"id\":1}' $ZABBIX"
}

# A server checks its maintenances when it starts, and then only once a minute.
zabbix_restart() {
  inside 'systemctl restart zabbix-server'
  wait_for 30 "Zabbix' trapper" 'ss -ltn | grep -q :10051'
}

# monitoring TEXT: replaces [monitoring] in the configuration, and everything behind it.
monitoring() {
  inside "sed -i '/^\[monitoring/,\$d' /etc/gitlab-backup/config.toml; cat >> /etc/gitlab-backup/config.toml <<'END'
$1
END
gitlab-backup install >/dev/null" || fail "not taken: $1"
}

# last KEY PATTERN: the last value that Zabbix has of an item. It stores a value a moment after it
# accepts it.
last() { wait_for 20 "$1 to be $2" "zabbix values '$1' | grep -E >/dev/null '(^| )$2\$'" || fail "$1 is not $2: $(inside "zabbix values '$1'")"; }
# checked PATTERN: check prints a matching line; its other findings in the lab do not matter here.
checked() { { inside 'gitlab-backup check' || true; } | grep -E "$1"; }
# over SECONDS: the program has ended its silence.
over() { wait_for "$1" 'the end of the silence' '! test -e /var/lib/gitlab-backup/silences.json' || fail "the silence does not end"; }

# argv_watch records every command line from now on. leaks FILE...: fails if the content of a FILE
# is in one of them, in the journal, or in the program's directories.
argv_watch() { inside 'systemd-run -q --unit=argv-watch bash -c "while :; do ps -ww --no-headers -eo args | grep -aE \"^[^ ]*(gitlab-backup|zabbix_sender) \" >> /srv/argv-seen; sleep 0.02; done"'; }
leaks() {
  inside "$(declare -f look); look $*" || fail "a secret is where it must not be"
}
look() {
  local file found=0
  grep -q 'helper' /srv/argv-seen || { echo "no command line was seen at all"; return 1; }
  journalctl -b -o export > /srv/journal-seen
  grep -qE 'TRACE|DEBUG' /srv/journal-seen || { echo "nothing was logged at trace level"; return 1; }
  for file in "$@"; do
    for place in /srv/argv-seen /srv/journal-seen /etc/systemd/system /var/lib/gitlab-backup /run/gitlab-backup; do
      if grep -rqaF -- "$(cat "$file")" "$place"; then echo "$file is in $place"; found=1; fi
    done
  done
  return $found
}
