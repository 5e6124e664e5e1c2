# Credentials that settings refer to, and one that none refers to, perhaps because of a typo.
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
