# sops-nix provides the password: no warning about a copy of it.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.repository.password-file = "/run/secrets/gitlab-backup";
}
