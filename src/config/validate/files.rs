//! `[files]`

use std::path::PathBuf;

use toml::Spanned;

use super::rules::{self, Refusal};
use super::{Checker, Defaults, KeyPlace, Section};
use crate::config::raw::{self, Field};
use crate::config::{EngineName, Files, Method};
use crate::frozen::Exclude;

/// The default size of an LVM snapshot: large enough for GitLab's writes during the hours that the
/// store stage may take, small enough for the free space of most volume groups.
const LVM_SNAPSHOT_SIZE: &str = "10%ORIGIN";

/// The table of a `[[files.path]]`: its place, its path, and its method if it has one.
type PathTable = (KeyPlace, PathBuf, Option<Method>);

pub(super) fn check(
    checker: &mut Checker,
    section: &Section,
    raw: raw::Files,
    layout: &str,
    defaults: &Defaults,
) -> Files {
    let command = checker.command(section, &raw.command);
    let paths = checker.list(section, "paths", &raw.paths, |path| rules::path(path));
    if let Some(paths) = &paths {
        refuse_nested(checker, paths);
    }
    let tables = path_tables(checker, &raw.path);
    let exclude = checker.list(section, "exclude", &raw.exclude, |glob| exclude(glob));
    let omit = checker.list(section, "omit", &raw.omit, |text| omit(text));
    let presync = raw.presync.as_ref().map(|presync| *presync.get_ref());
    if raw.command.is_some() {
        let table = tables.first().map(|(place, ..)| place.clone());
        refuse_beside_command(checker, section, &raw, table);
    } else if lacks_paths(&raw, &tables, defaults) && !layout.is_empty() {
        // The layout's name is empty if the layout itself was refused.
        refuse_no_paths(checker, section, &raw, layout);
    }
    let configuration =
        checker.list(section, "configuration", &raw.configuration, |path| rules::path(path));
    let mut paths: Vec<PathBuf> = match (&command, paths) {
        (_, Some(paths)) => paths.into_iter().map(|(_, path)| path).collect(),
        (Some(_), None) => Vec::new(),
        // Without a `paths` key, the `[[files.path]]` tables add to the layout's paths.
        (None, None) => defaults.paths.clone(),
    };
    add_path_tables(checker, &tables, &mut paths);
    refuse_excluding_paths(checker, exclude.as_deref().unwrap_or_default(), &paths);
    Files {
        configuration: choose_configuration(checker, configuration, &paths, defaults),
        paths,
        exclude: exclude.unwrap_or_default().into_iter().map(|(_, glob)| glob).collect(),
        omit: omit.unwrap_or_default().into_iter().map(|(_, text)| text).collect(),
        snapshot: checker
            .value(section, "snapshot", raw.snapshot.as_ref(), |word| {
                rules::word(word, &Method::WORDS)
            })
            .unwrap_or(Method::Auto),
        methods: tables.into_iter().filter_map(|(_, path, method)| Some((path, method?))).collect(),
        lvm_snapshot_size: checker
            .value(section, "lvm-snapshot-size", raw.lvm_snapshot_size.as_ref(), |text| {
                lvm_size(text)
            })
            .unwrap_or_else(|| LVM_SNAPSHOT_SIZE.to_owned()),
        // The caller sets both by the facts of the host.
        volumes: true,
        behind_links: Vec::new(),
        // A command replaces the first pass too.
        presync: presync.unwrap_or(command.is_none()),
        command,
    }
}

/// The paths with configuration: the configured ones, which must be among `paths`, or else those of
/// the layout that are.
fn choose_configuration(
    checker: &mut Checker,
    configured: Option<Vec<(KeyPlace, PathBuf)>>,
    paths: &[PathBuf],
    defaults: &Defaults,
) -> Vec<PathBuf> {
    let Some(configured) = configured else {
        return defaults
            .configuration
            .iter()
            .filter(|path| paths.contains(path))
            .cloned()
            .collect();
    };
    for (place, path) in configured.iter().filter(|(_, path)| !paths.contains(path)) {
        let refusal = Refusal::new(
            format!("'{}' is not one of files.paths", path.display()),
            "those of files.paths that hold configuration",
        );
        checker.refuse(place, refusal);
    }
    configured.into_iter().map(|(_, path)| path).collect()
}

/// Refuses the keys for the built-in file backup, which have no effect if a command replaces it.
/// `table` is the place of the first `[[files.path]]`.
fn refuse_beside_command(
    checker: &mut Checker,
    section: &Section,
    raw: &raw::Files,
    table: Option<KeyPlace>,
) {
    let given = raw.paths.as_ref().filter(|list| !list.get_ref().is_empty());
    let exclude = raw.exclude.as_ref().filter(|list| !list.get_ref().is_empty());
    let presync = raw.presync.as_ref().filter(|presync| *presync.get_ref());
    let contradictions = [
        ("paths", given.map(|list| section.field("paths", Some(list)))),
        ("exclude", exclude.map(|list| section.field("exclude", Some(list)))),
        ("presync", presync.map(|presync| section.field("presync", Some(presync)))),
        ("snapshot", raw.snapshot.as_ref().map(|method| section.field("snapshot", Some(method)))),
        ("path", table),
    ];
    for (name, place) in contradictions {
        if let Some(place) = place {
            let message = format!(
                "contradicts files.command, which replaces the file backup that files.{name} is \
                 for"
            );
            checker.refuse(&place, Refusal::new(message, format!("files.{name} or files.command")));
        }
    }
}

/// Whether neither the configuration nor the layout names any path.
fn lacks_paths(raw: &raw::Files, tables: &[PathTable], defaults: &Defaults) -> bool {
    match &raw.paths {
        Some(paths) => paths.get_ref().is_empty() && tables.is_empty(),
        None => defaults.paths.is_empty() && tables.is_empty(),
    }
}

/// Refuses a file backup without paths.
fn refuse_no_paths(checker: &mut Checker, section: &Section, raw: &raw::Files, layout: &str) {
    let message = match &raw.paths {
        Some(_) => "is empty: there would be no files to save".to_owned(),
        None => format!("is missing, and layout '{layout}' finds none on this host"),
    };
    let refusal = Refusal::new(
        message,
        "the absolute paths of repositories, uploads and configuration, or files.command",
    );
    checker.refuse(&section.field("paths", raw.paths.as_ref()), refusal);
}

/// Adds the paths of the `[[files.path]]` tables to `paths`. Refuses one that lies inside another
/// path or around it.
fn add_path_tables(checker: &mut Checker, tables: &[PathTable], paths: &mut Vec<PathBuf>) {
    for (place, path, _) in tables {
        if let Some(around) =
            paths.iter().find(|other| *other != path && rules::overlap(path, other))
        {
            let message =
                format!("'{}' and '{}' lie one inside the other", path.display(), around.display());
            checker.refuse(place, Refusal::new(message, "paths of which none lies inside another"));
        }
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
}

/// Validates the `[[files.path]]` tables.
fn path_tables(checker: &mut Checker, raw: &Field<Vec<Spanned<raw::FilesPath>>>) -> Vec<PathTable> {
    let mut tables: Vec<PathTable> = Vec::new();
    for (index, element) in raw.iter().flat_map(|list| list.get_ref()).enumerate() {
        let section = Section::of(format!("files.path[{index}]"), Some(element));
        let raw = element.get_ref();
        let place = section.field("path", raw.path.as_ref());
        if raw.path.is_none() {
            checker.refuse(&place, Refusal::new("is missing", "an absolute path"));
        }
        let method = checker.value(&section, "snapshot", raw.snapshot.as_ref(), |word| {
            rules::word(word, &Method::WORDS)
        });
        let Some(path) =
            checker.value(&section, "path", raw.path.as_ref(), |path| rules::path(path))
        else {
            continue;
        };
        if let Some((first, ..)) = tables.iter().find(|(_, other, _)| *other == path) {
            let message = format!("'{}' is listed twice, first as {}", path.display(), first.key);
            checker.refuse(&place, Refusal::new(message, "each value once"));
            continue;
        }
        tables.push((place, path, method));
    }
    tables
}

/// Refuses snapshots and clones with engine `restic`, which reads the files at their own paths.
pub(super) fn refuse_unsupported_method(
    checker: &mut Checker,
    section: &Section,
    files: &Files,
    engine: EngineName,
) {
    let is_unsupported = |method: &Method| {
        engine == EngineName::Restic && !matches!(method, Method::Auto | Method::None)
    };
    let mut methods = [files.snapshot].into_iter().chain(files.methods.values().copied());
    if let Some(method) = methods.find(is_unsupported) {
        let message =
            format!("'{method}' does not work with engine 'restic', which reads files in place");
        checker.refuse(
            &section.place("snapshot"),
            Refusal::new(message, "engine = \"builtin\", or snapshot \"auto\" or \"none\""),
        );
    }
}

/// lvcreate(8): `-l` takes percentages, `-L` sizes.
fn lvm_size(text: &str) -> Result<String, Refusal> {
    const ALLOWED: &str = "a size like '10G', or a share like '10%ORIGIN'";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let good = number.parse::<u64>().is_ok_and(|number| number > 0)
        && ["M", "G", "T", "%ORIGIN", "%FREE", "%VG"].contains(&unit);
    if good {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(format!("'{text}' is not a size"), ALLOWED))
    }
}

/// Refuses paths inside another path: they would be saved and restored twice.
fn refuse_nested(checker: &mut Checker, paths: &[(KeyPlace, PathBuf)]) {
    for (place, path) in paths {
        if let Some((outer, around)) =
            paths.iter().find(|(_, other)| path != other && path.starts_with(other))
        {
            let message = format!(
                "'{}' lies inside '{}' ({}), which is saved with everything in it",
                path.display(),
                around.display(),
                outer.key
            );
            checker.refuse(place, Refusal::new(message, "paths of which none lies inside another"));
        }
    }
}

/// Refuses the first pattern that excludes the whole of a path that is to be saved.
fn refuse_excluding_paths(
    checker: &mut Checker,
    exclude: &[(KeyPlace, String)],
    paths: &[PathBuf],
) {
    let patterns: Vec<String> = exclude.iter().map(|(_, pattern)| pattern.clone()).collect();
    let leaves_out = |patterns: &[String], path: &PathBuf| {
        Exclude::new(patterns).is_ok_and(|exclude| exclude.leaves_out(path))
    };
    for path in paths.iter().filter(|path| leaves_out(&patterns, path)) {
        let Some((place, pattern)) =
            exclude.iter().find(|(_, pattern)| leaves_out(std::slice::from_ref(pattern), path))
        else {
            continue;
        };
        let message =
            format!("'{pattern}' excludes the whole of '{}' of files.paths", path.display());
        checker.refuse(place, Refusal::new(message, "a pattern for entries inside a path"));
    }
}

/// A directory or the address of a storage, as in GitLab's configuration.
fn omit(text: &str) -> Result<String, Refusal> {
    let is_address = text.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    });
    match is_address && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        true => Ok(text.to_owned()),
        false => Ok(rules::path(text)?.to_string_lossy().into_owned()),
    }
}

/// A pattern as in gitignore(5): `!` negates it, a trailing `/` matches directories only.
fn exclude(text: &str) -> Result<String, Refusal> {
    const ALLOWED: &str =
        "a pattern as in gitignore(5), like '*.tmp' or '/home/git/gitlab/shared/cache/**'";
    if text.chars().any(char::is_control) {
        return Err(Refusal::new("has a control character in it", ALLOWED));
    }
    let glob = text.strip_prefix('!').unwrap_or(text);
    if glob.trim().is_empty() {
        return Err(Refusal::new("is blank", ALLOWED));
    }
    // In gitignore(5) 'shared/cache' means '/shared/cache', which is hardly what the admin wants.
    if !glob.starts_with(['/', '\\'])
        && !glob.starts_with("**/")
        && glob.trim_end_matches('/').contains('/')
    {
        let message = format!(
            "'{text}' has a '/' inside: write '/{glob}' for a path from the root directory, or \
             '**/{glob}' for any directory"
        );
        return Err(Refusal::new(message, ALLOWED));
    }
    match Exclude::new(&[text.to_owned()]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Refusal::new(format!("{error:#}"), ALLOWED)),
    }
}
