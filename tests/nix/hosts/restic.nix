# A repository on another host: no warning about a copy.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.repository = {
    engine = "restic";
    location = "s3:https://s3.example.com/gitlab";
    environment-file = "/run/secrets/s3";
  };
}
