# The host of the lab's scenario: the derived settings, except for the socket of the stand-in's
# Redis, its databases and its readiness, and steps of its own.
{
  services.gitlab = {
    enable = true;
    registry.enable = true;
    pages.enable = true;
    redisUrl = "unix:/run/redis/redis-server.sock";
    databaseName = "gitlabhq_production";
  };
  services.dockerRegistry.enableGarbageCollect = true;
  # The lab's Redis in the place of NixOS' own: GitLab's server is the one that listens at this
  # socket.
  services.redis.servers.gitlab.unixSocket = "/run/redis/redis-server.sock";
  services.gitlab-backup = {
    enable = true;
    settings = {
      # The lab makes many runs in a day.
      retention.keep-last = 30;
      gitlab.readiness-url = "http://127.0.0.1:8080/-/readiness";
      gitlab.stop-grace = "3s";
      postgresql.databases = [ "gitlabhq_registry" ];
      repository.location = "/srv/100 % \"backup\"";
      step = [
        {
          name = "slow";
          stage = "window";
          command = [
            "/bin/sh"
            "-c"
            "while [ -e /srv/hold ]; do sleep 0.1; done"
          ];
        }
        {
          name = "argv";
          stage = "finish";
          command = [
            "/usr/bin/python3"
            "-c"
            "import json, sys; json.dump(sys.argv[1:], open('/srv/argv', 'w'))"
            "a b"
            "100 %n %% %"
            "$HOME \${HOME} $$"
            "it's \"quoted\""
            "back\\slash"
            ";"
            ""
            "line\nbreak"
            "é ✓"
          ];
        }
      ];
    };
  };
}
