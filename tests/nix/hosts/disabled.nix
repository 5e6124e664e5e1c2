# The module configures nothing on the system.
{
  services.gitlab.enable = true;
}
