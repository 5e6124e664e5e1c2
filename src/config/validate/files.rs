//! `[files]`

use std::path::PathBuf;

use toml::Spanned;

use super::rules::{self, Refusal};
use super::{Checker, Defaults, Place, Section};
use crate::config::raw::{self, Field};
use crate::config::{EngineName, Files, Method};
use crate::frozen::Exclude;

/// What GitLab writes in the hours that a store may take, and not more than a volume group can
/// spare.
const LVM_SNAPSHOT_SIZE: &str = "10%ORIGIN";

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
        apart(checker, paths);
    }
    let own = own_paths(checker, &raw.path);
    let given = raw.paths.as_ref().filter(|list| !list.get_ref().is_empty());
    let exclude = checker.list(section, "exclude", &raw.exclude, |glob| exclude(glob));
    let omit = checker.list(section, "omit", &raw.omit, |text| omit(text));
    let presync = raw.presync.as_ref().map(|presync| *presync.get_ref());
    if raw.command.is_some() {
        contradictions(checker, section, &raw, own.first().map(|(place, ..)| place.clone()));
    } else if given.is_none()
        && own.is_empty()
        && (raw.paths.is_some() || defaults.paths.is_empty())
        && !layout.is_empty()
    {
        nothing_to_save(checker, section, &raw, layout);
    }
    let configuration =
        checker.list(section, "configuration", &raw.configuration, |path| rules::path(path));
    let mut paths: Vec<PathBuf> = match (&command, paths) {
        (_, Some(paths)) => paths.into_iter().map(|(_, path)| path).collect(),
        (Some(_), None) => Vec::new(),
        // A path that has a table of its own beside none in the list adds to what the layout finds.
        (None, None) => defaults.paths.clone(),
    };
    take_own(checker, &own, &mut paths);
    kept(checker, exclude.as_deref().unwrap_or_default(), &paths);
    for (place, path) in configuration.iter().flatten().filter(|(_, path)| !paths.contains(path)) {
        let refusal = Refusal::new(
            format!("'{}' is not one of files.paths", path.display()),
            "those of files.paths that hold configuration",
        );
        checker.refuse(place, refusal);
    }
    Files {
        configuration: match configuration {
            Some(configuration) => configuration.into_iter().map(|(_, path)| path).collect(),
            None => {
                defaults.configuration.iter().filter(|path| paths.contains(path)).cloned().collect()
            }
        },
        paths,
        exclude: exclude.unwrap_or_default().into_iter().map(|(_, glob)| glob).collect(),
        omit: omit.unwrap_or_default().into_iter().map(|(_, text)| text).collect(),
        snapshot: checker
            .value(section, "snapshot", raw.snapshot.as_ref(), |word| {
                rules::word(word, &Method::WORDS)
            })
            .unwrap_or(Method::Auto),
        methods: own.into_iter().filter_map(|(_, path, method)| Some((path, method?))).collect(),
        lvm_snapshot_size: checker
            .value(section, "lvm-snapshot-size", raw.lvm_snapshot_size.as_ref(), |text| {
                lvm_size(text)
            })
            .unwrap_or_else(|| LVM_SNAPSHOT_SIZE.to_owned()),
        // Told when the host has been looked at.
        volumes: true,
        behind_links: Vec::new(),
        // There is nothing to copy ahead where a program of its own does it all.
        presync: presync.unwrap_or(command.is_none()),
        command,
    }
}

/// What is for our own backup of the files says nothing where a command takes its place.
fn contradictions(checker: &mut Checker, section: &Section, raw: &raw::Files, own: Option<Place>) {
    let given = raw.paths.as_ref().filter(|list| !list.get_ref().is_empty());
    let exclude = raw.exclude.as_ref().filter(|list| !list.get_ref().is_empty());
    let presync = raw.presync.as_ref().filter(|presync| *presync.get_ref());
    let contradictions = [
        ("paths", given.map(|list| section.field("paths", Some(list)))),
        ("exclude", exclude.map(|list| section.field("exclude", Some(list)))),
        ("presync", presync.map(|presync| section.field("presync", Some(presync)))),
        ("snapshot", raw.snapshot.as_ref().map(|method| section.field("snapshot", Some(method)))),
        ("path", own),
    ];
    for (name, place) in contradictions {
        if let Some(place) = place {
            let message = format!(
                "contradicts files.command, which takes the place of the backup that files.{name} is for"
            );
            checker.refuse(&place, Refusal::new(message, format!("files.{name} or files.command")));
        }
    }
}

fn nothing_to_save(checker: &mut Checker, section: &Section, raw: &raw::Files, layout: &str) {
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

/// Adds the paths that have a table of their own.
fn take_own(
    checker: &mut Checker,
    own: &[(Place, PathBuf, Option<Method>)],
    paths: &mut Vec<PathBuf>,
) {
    for (place, path, _) in own {
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

/// `[[files.path]]`
fn own_paths(
    checker: &mut Checker,
    raw: &Field<Vec<Spanned<raw::FilesPath>>>,
) -> Vec<(Place, PathBuf, Option<Method>)> {
    let mut own: Vec<(Place, PathBuf, Option<Method>)> = Vec::new();
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
        if let Some((first, ..)) = own.iter().find(|(_, other, _)| *other == path) {
            let message = format!("'{}' is there twice, first as {}", path.display(), first.key);
            checker.refuse(&place, Refusal::new(message, "each once"));
            continue;
        }
        own.push((place, path, method));
    }
    own
}

/// A method whose files this engine cannot read: restic reads them where they are.
pub(super) fn unreadable(
    section: &Section,
    files: &Files,
    engine: EngineName,
) -> Option<(Place, String)> {
    let needs = |method: &Method| {
        engine == EngineName::Restic && !matches!(method, Method::Auto | Method::None)
    };
    let method = [files.snapshot].into_iter().chain(files.methods.values().copied()).find(needs)?;
    Some((
        section.place("snapshot"),
        format!("'{method}' is not for engine 'restic', which reads files where they are"),
    ))
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
        Err(Refusal::new(format!("'{text}' is no size"), ALLOWED))
    }
}

/// What lies inside another path would be saved, and restored, twice.
fn apart(checker: &mut Checker, paths: &[(Place, PathBuf)]) {
    for (place, path) in paths {
        if let Some((outer, around)) =
            paths.iter().find(|(_, other)| path != other && path.starts_with(other))
        {
            let message = format!(
                "'{}' lies inside '{}' ({}), which is saved whole",
                path.display(),
                around.display(),
                outer.key
            );
            checker.refuse(place, Refusal::new(message, "paths of which none lies inside another"));
        }
    }
}

/// What is to be saved is not left out: by the first pattern that would do so.
fn kept(checker: &mut Checker, exclude: &[(Place, String)], paths: &[PathBuf]) {
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
        let message = format!(
            "'{pattern}' leaves out the whole of '{}', which is to be saved",
            path.display()
        );
        checker.refuse(place, Refusal::new(message, "what lies inside a path"));
    }
}

/// What GitLab's configuration names: a directory, or the address of a storage.
fn omit(text: &str) -> Result<String, Refusal> {
    let is_address = text.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    });
    match is_address && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        true => Ok(text.to_owned()),
        false => Ok(rules::path(text)?.to_string_lossy().into_owned()),
    }
}

/// A pattern as in gitignore(5): `!` takes back, a `/` at the end means directories only.
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
    // It would mean '/shared/cache': hardly what anybody has in mind who writes it.
    if !glob.starts_with(['/', '\\'])
        && !glob.starts_with("**/")
        && glob.trim_end_matches('/').contains('/')
    {
        let message = format!(
            "'{text}' has a '/' inside: for a path from the root directory on write '/{glob}', for any place '**/{glob}'"
        );
        return Err(Refusal::new(message, ALLOWED));
    }
    match Exclude::new(&[text.to_owned()]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Refusal::new(format!("{error:#}"), ALLOWED)),
    }
}
