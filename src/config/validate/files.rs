//! `[files]`

use std::path::PathBuf;

use super::rules::{self, Refusal};
use super::{Checker, Defaults, Place, Section};
use crate::config::{Files, raw};

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Files, layout: &str, defaults: &Defaults) -> Files {
    let command = checker.command(section, &raw.command);
    let paths = checker.list(section, "paths", &raw.paths, |path| rules::path(path));
    if let Some(paths) = &paths {
        apart(checker, paths);
    }
    let given = raw.paths.as_ref().filter(|list| !list.get_ref().is_empty());
    let exclude = checker.list(section, "exclude", &raw.exclude, |glob| exclude(glob));
    let presync = raw.presync.as_ref().map(|presync| *presync.get_ref());
    if raw.command.is_some() {
        let exclude = raw.exclude.as_ref().filter(|list| !list.get_ref().is_empty());
        let presync = raw.presync.as_ref().filter(|presync| *presync.get_ref());
        let contradictions = [
            ("paths", given.map(|list| section.field("paths", Some(list)))),
            ("exclude", exclude.map(|list| section.field("exclude", Some(list)))),
            ("presync", presync.map(|presync| section.field("presync", Some(presync)))),
        ];
        for (name, place) in contradictions {
            if let Some(place) = place {
                let message = format!("contradicts files.command, which takes the place of the backup that files.{name} is for");
                checker.refuse(&place, Refusal::new(message, format!("files.{name} or files.command")));
            }
        }
    } else if given.is_none() && (raw.paths.is_some() || defaults.paths.is_empty()) && !layout.is_empty() {
        let message = match &raw.paths {
            Some(_) => "is empty: there would be no files to save".to_owned(),
            None => format!("is missing, and layout '{layout}' finds none on this host"),
        };
        let refusal = Refusal::new(message, "the absolute paths of repositories, uploads and configuration, or files.command");
        checker.refuse(&section.field("paths", raw.paths.as_ref()), refusal);
    }
    let configuration = checker.list(section, "configuration", &raw.configuration, |path| rules::path(path));
    let paths: Vec<PathBuf> = match (&command, paths) {
        (_, Some(paths)) => paths.into_iter().map(|(_, path)| path).collect(),
        (Some(_), None) => Vec::new(),
        (None, None) => defaults.paths.clone(),
    };
    for (place, path) in configuration.iter().flatten().filter(|(_, path)| !paths.contains(path)) {
        let refusal =
            Refusal::new(format!("'{}' is not one of files.paths", path.display()), "those of files.paths that hold configuration");
        checker.refuse(place, refusal);
    }
    Files {
        configuration: match configuration {
            Some(configuration) => configuration.into_iter().map(|(_, path)| path).collect(),
            None => defaults.configuration.iter().filter(|path| paths.contains(path)).cloned().collect(),
        },
        paths,
        exclude: exclude.unwrap_or_default().into_iter().map(|(_, glob)| glob).collect(),
        // There is nothing to copy ahead where a program of its own does it all.
        presync: presync.unwrap_or(command.is_none()),
        command,
    }
}

/// What lies inside another path would be saved, and restored, twice.
fn apart(checker: &mut Checker, paths: &[(Place, PathBuf)]) {
    for (place, path) in paths {
        if let Some((outer, around)) = paths.iter().find(|(_, other)| path != other && path.starts_with(other)) {
            let message = format!("'{}' lies inside '{}' ({}), which is saved whole", path.display(), around.display(), outer.key);
            checker.refuse(place, Refusal::new(message, "paths of which none lies inside another"));
        }
    }
}

/// A glob as in gitignore(5): `!` takes back, a `/` at the end means directories only.
fn exclude(text: &str) -> Result<String, Refusal> {
    const ALLOWED: &str = "a glob as in gitignore(5), like '*.tmp' or '/home/git/gitlab/shared/cache/**'";
    if text.chars().any(char::is_control) {
        return Err(Refusal::new("has a control character in it", ALLOWED));
    }
    let glob = text.strip_prefix('!').unwrap_or(text);
    if glob.trim().is_empty() {
        return Err(Refusal::new("is blank", ALLOWED));
    }
    match globset::GlobBuilder::new(glob).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Refusal::new(format!("'{text}' is not a glob: {}", error.kind()), ALLOWED)),
    }
}
