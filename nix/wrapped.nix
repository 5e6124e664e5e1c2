# The program with the programs that it calls at the end of its PATH. Units and admins find them
# whatever PATH they have: `systemd.services.gitlab-backup-NAME`, set for any reason, brings NixOS'
# default PATH, which has neither findmnt nor git.
{
  lib,
  symlinkJoin,
  makeBinaryWrapper,
  package,
  path,
}:
symlinkJoin {
  name = "${lib.getName package}-wrapped";
  paths = [ package ];
  nativeBuildInputs = [ makeBinaryWrapper ];
  # The program starts itself again, and compares the units with itself, by argv[0].
  postBuild = ''
    rm $out/bin/gitlab-backup
    makeWrapper ${package}/bin/gitlab-backup $out/bin/gitlab-backup \
      --argv0 $out/bin/gitlab-backup \
      --suffix PATH : ${lib.makeBinPath path}
  '';
  meta.mainProgram = "gitlab-backup";
}
