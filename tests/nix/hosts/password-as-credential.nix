# The password as an encrypted credential: no file is configured.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup = {
    credentials."gitlab.repository" = "/nix/store/x-gitlab.repository";
    settings.repository.password-credential = "encrypted:gitlab.repository";
  };
}
