# A stand-in GitLab with the units of NixOS' module services.gitlab: the same names and
# dependencies, and each unit file is a link into the store; sourced after lib.sh.
RUNNING='gitlab.target gitlab.service gitlab-sidekiq.service gitlab-workhorse.service gitlab-pages.service gitaly.service docker-registry.service'
# Units of the target that are not writers.
STAY='gitlab-config.service gitlab-db-config.service gitlab-postgresql.service'
STORE=/nix/store

# unit NAME: installs a unit; stdin is its file.
unit() {
  local at=$STORE/stand-in-unit-$1
  mkdir -p "$M/root$at"
  cat > "$M/root$at/$1"
  ln -sfn "$at/$1" "$M/root/etc/systemd/system/$1"
}

# pulled_in HOW UNIT...: links these units in gitlab.target's directory HOW, wants or requires.
pulled_in() {
  local how=$1 name
  shift
  mkdir -p "$M/root/etc/systemd/system/gitlab.target.$how"
  for name; do ln -sfn "../$name" "$M/root/etc/systemd/system/gitlab.target.$how/$name"; done
}

# program NAME WHAT BOUND: installs a unit for the stand-in's process WHAT that is bound to the
# units BOUND; stdin is the rest of its file.
program() {
  { cat <<UNIT
[Unit]
PartOf=gitlab.target
BindsTo=$3
After=network.target redis-gitlab.service postgresql.service gitlab-postgresql.service $3
UNIT
    cat
    cat <<UNIT
TimeoutSec=infinity
Slice=system-gitlab.slice
User=git
Group=git
ExecStart=/usr/local/bin/standin $2
UNIT
  } | unit "$1"
}

# once NAME BOUND: installs a oneshot that remains active, and records each time that it runs.
once() {
  unit "$1" <<UNIT
[Unit]
PartOf=gitlab.target
${2:+BindsTo=$2
After=$2}
[Service]
Type=oneshot
RemainAfterExit=true
Restart=on-failure
TimeoutSec=infinity
Slice=system-gitlab.slice
ExecStart=/bin/sh -c 'echo ran >> /srv/ran-$1'
UNIT
}

# become_nixos: turns the booted machine into one whose GitLab NixOS has set up.
become_nixos() {
  touch "$M/root/etc/NIXOS"
  inside 'systemctl stop gitlab.target gitlab-puma gitlab-sidekiq gitlab-workhorse gitlab-gitaly redis-server; systemctl -q disable gitlab.target redis-server standin-setup
    rm -r /etc/systemd/system/gitlab* /etc/systemd/system/redis-server.service.d
    # The paths that NixOS uses.
    mkdir -p /var/gitlab/state && cd /var/gitlab/state && mkdir builds shared custom_hooks home && mv /home/git/repositories . && mv /home/git/gitlab/public/uploads . && mv /home/git/gitlab/config .
    ln -s /var/gitlab/state/repositories /home/git/repositories; ln -s /var/gitlab/state/uploads /home/git/gitlab/public/uploads; chown git:git . *
    mkdir -p /var/lib/docker-registry; chown -R git /var/lib/redis /etc/redis /var/log/redis' || fail "cannot become NixOS"
  once gitlab-config.service ''
  once gitlab-db-config.service gitlab-config.service
  once gitlab-postgresql.service postgresql.service
  program gitlab-sidekiq.service sidekiq 'gitlab-config.service gitlab-db-config.service' <<< $'Wants=redis-gitlab.service postgresql.service\n[Service]\nType=simple\nRestart=always'
  program gitaly.service gitaly gitlab-config.service <<< $'[Service]\nType=simple\nRestart=on-failure\nRuntimeDirectory=gitaly\nWorkingDirectory=/var/gitlab/state/home'
  program gitlab-pages.service mailroom 'gitlab-config.service gitlab.service' <<< $'[Service]\nType=simple\nRestart=on-failure'
  program gitlab-mailroom.service mailroom gitlab-config.service <<< $'[Service]\nType=simple\nRestart=on-failure'
  program gitlab-workhorse.service workhorse '' <<< $'[Service]\nType=simple\nRestart=on-failure'
  program gitlab.service puma 'gitlab-config.service gitlab-db-config.service' <<< $'After=gitlab-workhorse.service\nWants=redis-gitlab.service postgresql.service\n[Service]\nType=notify\nNotifyAccess=all\nRestart=on-failure'
  unit gitlab.target <<< $'[Unit]\nDescription=Common target for all GitLab services.'
  unit docker-registry.service <<< $'[Service]\nExecStart=/bin/sleep infinity'
  # It restarts the registry even if it was stopped.
  unit docker-registry-garbage-collect.service <<< $'[Service]\nType=oneshot\nExecStart=/bin/systemctl restart docker-registry.service'
  unit docker-registry-garbage-collect.timer <<< $'[Timer]\nOnCalendar=2099-01-01'
  unit redis-gitlab.service <<< $'[Service]\nType=notify\nUser=git\nGroup=git\nRuntimeDirectory=redis\nRuntimeDirectoryMode=0755\nExecStart=/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd --daemonize no\nTimeoutStartSec=infinity\nTimeoutStopSec=infinity'
  pulled_in requires gitlab.service
  pulled_in wants $STAY gitlab-sidekiq.service gitaly.service gitlab-pages.service gitlab-workhorse.service gitlab-mailroom.service
  mkdir -p "$M/root/etc/systemd/system/multi-user.target.wants"
  ln -s ../gitlab.target "$M/root/etc/systemd/system/multi-user.target.wants/gitlab.target"
  inside 'systemctl daemon-reload; systemctl start gitlab.target docker-registry.service docker-registry-garbage-collect.timer; systemctl stop gitlab-mailroom'
  wait_for 30 'GitLab to answer' "$ANSWERS && systemctl is-active $RUNNING $STAY"
}

# ran UNIT: prints how often it ran.
ran() { inside "wc -l < /srv/ran-$1.service"; }

# nothing_ran_again: each oneshot ran only once, and is active.
nothing_ran_again() {
  for unit in gitlab-config gitlab-db-config gitlab-postgresql; do [ "$(ran $unit)" = 1 ] || fail "$unit ran $(ran $unit) times"; done
  inside "systemctl is-active -q $STAY" || fail "what is no writer went down"
}

# wrapped: puts the program behind a wrapper that extends PATH, like the module's; a shell script
# stands in for makeBinaryWrapper.
wrapped() {
  mkdir -p "$M/root$STORE/stand-in-program"
  mv "$M/root/usr/local/bin/gitlab-backup" "$M/root$STORE/stand-in-program/"
  cat > "$M/root/usr/local/bin/gitlab-backup" <<WRAPPER
#!/bin/bash
PATH=\$PATH:/usr/bin:/usr/sbin exec -a /usr/local/bin/gitlab-backup $STORE/stand-in-program/gitlab-backup "\$@"
WRAPPER
  chmod 755 "$M/root/usr/local/bin/gitlab-backup"
}

# import_module: builds the module's units in the machine, and links them where NixOS does.
import_module() {
  local evaluation command at
  evaluation=$("$LAB/../nix/evaluate" "$LAB/../nix/hosts/lab.nix" "$STORE" /usr/local) || fail "the module does not evaluate"
  command=$("$LAB/../nix/realise" "$M/root" <<< "$evaluation") || fail "what the module builds cannot be laid out"
  inside "out=$command bash -euo pipefail $command.sh" || fail "what the module builds does not build"
  # Like NixOS with systemd.packages: a link for each unit, and one for each drop-in.
  inside "cd $command/lib/systemd/system; for unit in *; do
      if [ -d \$unit ]; then mkdir -p /etc/systemd/system/\$unit; ln -sf $command/lib/systemd/system/\$unit/* /etc/systemd/system/\$unit/
      else ln -s $command/lib/systemd/system/\$unit /etc/systemd/system/; fi
    done
    # Drop-ins for the targets that systemd ships: no link enables the units.
    for target in timers multi-user; do mkdir -p /etc/systemd/system/\$target.target.d; done
    echo -e '[Unit]\nWants=$(jq_ '" ".join(told["targets"]["timers"]["wants"])' <<< "$evaluation")' > /etc/systemd/system/timers.target.d/overrides.conf
    echo -e '[Unit]\nWants=$(jq_ '" ".join(told["targets"]["multi-user"]["wants"])' <<< "$evaluation")' > /etc/systemd/system/multi-user.target.d/overrides.conf
    mkdir -p /etc/gitlab-backup; ln -s $(jq_ 'told["etc"]["gitlab-backup/config.toml"]' <<< "$evaluation") /etc/gitlab-backup/config.toml
    # Debian's programs at the paths that the evaluation has for the host's packages.
    mkdir -p $STORE/stand-in-postgresql; ln -s /usr/lib/postgresql/*/bin $STORE/stand-in-postgresql/bin
    for name in coreutils util-linux git btrfs-progs lvm2 systemd redis; do mkdir -p $STORE/stand-in-\$name; ln -s /usr/bin $STORE/stand-in-\$name/bin; done" || fail "what the module builds cannot be installed"
  unit gitlab-backup-secrets.service <<< "[Service]
Type=oneshot
RemainAfterExit=true
UMask=0077
ExecStart=$(jq_ 'told["services"]["gitlab-backup-secrets"]["serviceConfig"]["ExecStart"]' <<< "$evaluation")"
  # It waits less than the real one: the run is held open until a waiting command gives up.
  unit gitlab-backup-removal.service <<< "[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=true
$(jq_ '"\n".join("ExecStop=" + command for command in told["services"]["gitlab-backup-removal"]["serviceConfig"]["ExecStop"])' <<< "$evaluation" | sed 's/--wait 600/--wait 2/; s|/nix/store/stand-in-systemd|/usr|')
TimeoutStopSec=300"
  # The check that switch-to-configuration runs before it changes anything.
  jq_ 'told["checks"]["gitlab-backup"]' <<< "$evaluation" > "$M/root/srv/pre-switch-check"
  inside 'systemctl daemon-reload; systemctl start gitlab-backup-secrets.service gitlab-backup-removal.service gitlab-backup-run.timer gitlab-backup-verify.timer' || fail "the module's units"
}

# jq_ EXPRESSION: prints a value of the evaluated host, which is read from stdin.
jq_() { python3 -c 'import json, sys; told = json.load(sys.stdin)["host"]; print(eval(sys.argv[1]))' "$1"; }
