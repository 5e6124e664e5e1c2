# Compares paths as text.
{ lib }:
let
  inherit (lib)
    any
    concatStringsSep
    filter
    hasPrefix
    splitString
    unique
    ;
  within = outer: path: path == outer || outer == "/" || hasPrefix "${outer}/" path;
in
{
  # Removes double slashes, `.` and a final slash, which change the text but not the path.
  clean =
    path: "/" + concatStringsSep "/" (filter (part: part != "" && part != ".") (splitString "/" path));
  # Whether one of `paths` contains `path`.
  covered = paths: path: any (outer: within outer path) paths;
  # Removes paths inside others, which the program refuses.
  outermost =
    paths: filter (path: !any (outer: outer != path && within outer path) paths) (unique paths);
}
