# restic's other spelling of a directory.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.repository = {
    engine = "restic";
    location = "local:/srv/backup";
  };
}
