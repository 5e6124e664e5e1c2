# Compares paths, by their text alone.
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
  # Without doubled slashes, `.` and a slash at the end: they change the text and not the path.
  clean =
    path: "/" + concatStringsSep "/" (filter (part: part != "" && part != ".") (splitString "/" path));
  # Whether one of `paths` has `path` in it.
  covered = paths: path: any (outer: within outer path) paths;
  # The program refuses a path that lies inside another, which is saved whole.
  outermost =
    paths: filter (path: !any (outer: outer != path && within outer path) paths) (unique paths);
}
