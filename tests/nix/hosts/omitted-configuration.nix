# The configuration is left out, and what lies in it.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.secrets.jwsFile = "/var/gitlab/state/config/jws";
  services.gitlab-backup.omit = [ "/var/gitlab/state/config" ];
}
