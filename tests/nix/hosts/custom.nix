# No services.gitlab: the settings say everything.
{
  services.gitlab-backup = {
    enable = true;
    settings = {
      gitlab.writers = [ "gitlab.service" ];
      files.paths = [ "/srv/git" ];
    };
  };
}
