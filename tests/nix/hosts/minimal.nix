# What an admin writes: everything else is derived.
{
  services.gitlab.enable = true;
  services.gitlab-backup = {
    enable = true;
    settings.repository.location = "/srv/backup";
  };
}
