# The program, with the programs that it calls at the end of its PATH, so that it finds them whatever
# PATH a unit or an admin has. A unit for which `systemd.services.gitlab-backup-NAME` is set gets
# NixOS' default PATH, which has neither findmnt nor git.
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
  # The program uses argv[0] to start itself again and to compare the units with itself.
  postBuild = ''
    rm $out/bin/gitlab-backup
    makeWrapper ${package}/bin/gitlab-backup $out/bin/gitlab-backup \
      --argv0 $out/bin/gitlab-backup \
      --suffix PATH : ${lib.makeBinPath path}
  '';
  meta.mainProgram = "gitlab-backup";
}
