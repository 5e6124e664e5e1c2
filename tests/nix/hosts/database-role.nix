# A separate role, which has an account.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.postgresql = {
    user = "gitlab-backup";
    restore-user = "postgres";
  };
}
