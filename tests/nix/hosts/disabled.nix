# Nothing is asked of the system.
{
  services.gitlab.enable = true;
}
