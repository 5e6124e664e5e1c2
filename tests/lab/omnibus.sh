# Shared by scenarios of an Omnibus package; sourced after lib.sh.
AGREE='PGHOST=/var/opt/gitlab/postgresql STANDIN_REPOSITORIES=/var/opt/gitlab/git-data/repositories STANDIN_UPLOADS=/var/opt/gitlab/gitlab-rails/uploads STANDIN_POSTGRES=gitlab-psql standin-agree'
SERVICES='gitaly gitlab-workhorse puma sidekiq'

# package NAME: boots a machine whose GitLab is an Omnibus package, with a minimal configuration.
package() {
  boot "$1"
  # The real gitlab-ctl is slow: a Ruby program that first loads all its commands.
  inside 'sed -i "s/^word=/sleep 0.9\n&/" /usr/local/bin/gitlab-ctl; standin-omnibus'
  wait_for 30 'GitLab to answer' "$ANSWERS"
  inside 'gitlab-ctl stop mailroom; mkdir -p /etc/gitlab-backup; cat > /etc/gitlab-backup/config.toml <<END
[gitlab]
readiness-url = "http://127.0.0.1:8080/-/readiness"
max-downtime = "'"${MAX_DOWNTIME:-30min}"'"
stop-grace = "3s"
END
gitlab-backup install' >/dev/null
}

up() { inside "/opt/gitlab/embedded/bin/sv status /opt/gitlab/service/$1" | grep '^run:' >/dev/null; }

# gitlab_is_back SECONDS: GitLab answers, services that ran before are up, others are not, and those
# that stay up were never touched.
gitlab_is_back() {
  wait_for "$1" "GitLab to be back" "$ANSWERS && ! test -e /run/gitlab-backup/paused.json" || fail "GitLab is not back"
  for service in $SERVICES; do up $service || fail "$service is not back"; done
  ! up mailroom || fail "mailroom did not run before"
  [ "$(stays)" = "$untouched" ] || fail "a service that stays up was touched: $untouched; $(stays)"
}
stays() { inside 'for s in postgresql redis logrotate; do cat /opt/gitlab/service/$s/supervise/pid; done' | paste -sd ' '; }
