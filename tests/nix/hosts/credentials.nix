# Credentials that are named, and one that is not, perhaps by a typo.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup = {
    credentials."gitlab.repository" = "/nix/store/x-gitlab.repository";
    credentials."gitlab.redsi" = "/nix/store/x-gitlab.redis";
    settings.repository.password-credential = "encrypted:gitlab.repository";
    settings.redis = [
      {
        name = "cache";
        url = "redis://cache.example.com";
        password-credential = "encrypted:gitlab.redis";
      }
    ];
  };
}
