# The state directory elsewhere, with a blank in its name.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab.statePath = "/srv/gitlab state";
}
