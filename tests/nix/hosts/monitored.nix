# Zabbix is silenced, and a timer ends the silence.
{
  services.gitlab.enable = true;
  services.gitlab-backup.enable = true;
  services.gitlab-backup.settings.monitoring.zabbix = {
    api = "https://zabbix.example.com/api_jsonrpc.php";
    token-file = "/run/secrets/zabbix";
    hosts = [ "gitlab" ];
  };
}
