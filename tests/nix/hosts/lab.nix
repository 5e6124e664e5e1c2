# The host of the lab's scenario: what is derived, except for the socket of the stand-in's Redis,
# its databases and its readiness, and steps of its own.
{
  services.gitlab = {
    enable = true;
    registry.enable = true;
    pages.enable = true;
    redisUrl = "unix:/run/redis/redis-server.sock";
    databaseName = "gitlabhq_production";
  };
  services.dockerRegistry.enableGarbageCollect = true;
  # The lab's, as the one of NixOS: GitLab's Redis is the one that listens where GitLab asks.
  services.redis.servers.gitlab.unixSocket = "/run/redis/redis-server.sock";
  services.gitlab-backup = {
    enable = true;
    settings = {
      # The lab makes many in a day.
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
