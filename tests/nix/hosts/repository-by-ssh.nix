# restic reaches the repository by ssh.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.repository = {
    engine = "restic";
    location = "sftp:backup@example.com:/srv/gitlab";
  };
}
