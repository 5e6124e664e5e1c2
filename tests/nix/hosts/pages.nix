# Pages in a separate directory.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.pages.enable = true;
  services.gitlab.pages.settings.pages-root = "/srv/pages";
}
