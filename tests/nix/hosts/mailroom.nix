# The unit is there if incoming mail is.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.incoming_email.enabled = true;
}
