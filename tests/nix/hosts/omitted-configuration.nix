# The configuration is omitted; a secret in it is listed separately, and saved.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.secrets.jwsFile = "/var/gitlab/state/config/jws";
  services.gitlab-backup.omit = [ "/var/gitlab/state/config" ];
}
