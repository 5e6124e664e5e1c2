# An instance with the name that the derived one would have.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.redis = [
    {
      name = "main";
      url = "redis://cache.example.com";
    }
  ];
}
