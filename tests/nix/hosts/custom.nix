# No services.gitlab: the settings contain everything.
{
  services.gitlab-backup = {
    enable = true;
    settings = {
      gitlab.writers = [ "gitlab.service" ];
      files.paths = [ "/srv/git" ];
    };
  };
}
