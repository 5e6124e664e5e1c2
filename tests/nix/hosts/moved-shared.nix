# All blobs elsewhere, and Pages with them.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.extraConfig.shared.path = "/srv/shared";
  services.gitlab.pages.enable = true;
}
