# The repository in a place that the admin chose.
{
  services.gitlab.enable = true;
  services.gitlab-backup = {
    enable = true;
    settings.repository.location = "/srv/backup";
  };
}
