# An instance that is called as the derived one would be.
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
