# GitLab's programs beside Rails look for the uploads in another place.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraEnv.GITLAB_UPLOADS_PATH = "/srv/uploads";
}
