//! `[repository]`

use std::path::PathBuf;

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::{EngineName, Repository, raw};
use crate::paths;
use crate::values::SecretSource;

const ENGINES: [(&str, EngineName); 2] =
    [("builtin", EngineName::Builtin), ("restic", EngineName::Restic)];
const LOCATION: &str = "/var/backups/gitlab";

pub(super) fn check(checker: &mut Checker, section: &Section, raw: raw::Repository) -> Repository {
    let engine =
        checker.value(section, "engine", raw.engine.as_ref(), |word| rules::word(word, &ENGINES));
    // `None` if the engine was refused: then values that depend on it are not checked.
    let engine = engine.or(raw.engine.is_none().then_some(EngineName::Builtin));
    let location = checker.value(section, "location", raw.location.as_ref(), |text| match engine {
        Some(EngineName::Builtin) => builtin_location(text),
        Some(EngineName::Restic) => restic_location(text),
        None => Ok(LOCATION.to_owned()),
    });
    let environment_file =
        checker.value(section, "environment-file", raw.environment_file.as_ref(), |path| {
            rules::path(path)
        });
    if let (Some(field), Some(EngineName::Builtin)) = (&raw.environment_file, engine) {
        let refusal = Refusal::new(
            "is for restic, and the engine is 'builtin'",
            "engine = \"restic\", or no environment-file",
        );
        checker.refuse(&section.field("environment-file", Some(field)), refusal);
    }
    let password = checker.secret(section, &raw.password_file, &raw.password_credential);
    Repository {
        engine: engine.unwrap_or(EngineName::Builtin),
        location: location.unwrap_or_else(|| LOCATION.to_owned()),
        password: password.unwrap_or_else(|| SecretSource::File(PathBuf::from(paths::PASSWORD))),
        environment_file,
    }
}

/// `scheme` of `scheme:rest`, by which restic chooses the backend.
fn scheme(location: &str) -> Option<&str> {
    let (scheme, _) = location.split_once(':')?;
    (!scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())).then_some(scheme)
}

fn builtin_location(text: &str) -> Result<String, Refusal> {
    if let Some(scheme) = scheme(text) {
        let message = format!("'{scheme}:' is a backend that only restic supports");
        return Err(Refusal::new(message, "engine = \"restic\" with it, or an absolute path"));
    }
    Ok(rules::path(text)?.to_string_lossy().into_owned())
}

fn restic_location(text: &str) -> Result<String, Refusal> {
    const ALLOWED: &str =
        "an absolute path, or a repository of restic, like 's3:https://s3.example.org/backups'";
    if text.chars().any(char::is_control) {
        return Err(Refusal::new("has a control character in it", ALLOWED));
    }
    if scheme(text).is_none() {
        return Ok(rules::path(text)?.to_string_lossy().into_owned());
    }
    if let Some(path) = text.strip_prefix("local:") {
        return Ok(format!("local:{}", rules::path(path)?.display()));
    }
    // `rest:https://user:password@host/`: locations end up in units and logs. The message does not
    // quote it either.
    let authority =
        text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
        let allowed = "the location without it, and environment-file with RESTIC_REST_USERNAME \
                       and RESTIC_REST_PASSWORD";
        return Err(Refusal::new(
            "has a password in it, which would end up in units and logs",
            allowed,
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_those_that_the_engine_supports() {
        assert_eq!(builtin_location("/srv//backup/").unwrap(), "/srv/backup");
        for text in ["", "backup", "s3:bucket", "sftp:u@h:/x", "/a/../b", "rest:http://h/"] {
            assert!(builtin_location(text).is_err(), "{text}");
        }
        for text in [
            "/srv/backup",
            "s3:https://s3.example.org/backups",
            "sftp:backup@h:/srv",
            "rest:https://u@h/x",
            "b2:bucket:path",
        ] {
            assert_eq!(restic_location(text).unwrap(), text);
        }
        assert_eq!(restic_location("local:/srv//backup/").unwrap(), "local:/srv/backup");
        for text in ["", "backup", "local:backup", "s3:a\nb", "rest:https://u:hunter2@h/x"] {
            let refusal = restic_location(text).unwrap_err();
            assert!(!format!("{refusal:?}").contains("hunter2"));
        }
    }
}
