# The configuration is left out; a secret that lies in it is named by itself, and saved.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.secrets.jwsFile = "/var/gitlab/state/config/jws";
  services.gitlab-backup.omit = [ "/var/gitlab/state/config" ];
}
