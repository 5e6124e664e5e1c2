# The unit exists if incoming mail is enabled.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.incoming_email.enabled = true;
}
