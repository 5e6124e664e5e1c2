//! Rules for single values, shared by all sections.

use std::path::{Component, Path, PathBuf};

use crate::values::{Calendar, SecretSource, Timespan, UnitName, is_noncharacter};

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) allowed: Option<String>,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { message: message.into(), allowed: Some(allowed.into()) }
    }
}

/// The limit of execve(2) on Linux for one argument: `MAX_ARG_STRLEN` without the NUL.
const ARGUMENT_MAX: usize = 128 * 1024 - 1;
/// The maximum size of a command in bytes. Well below the limit of execve(2) with the smallest
/// usual stack limit.
const COMMAND_MAX: usize = 1024 * 1024;
const ABSOLUTE: &str = "an absolute path without '..' and control characters, its last character \
                        no blank and no backslash";

const NONCHARACTER: &str =
    "has a code point in it that is no character (like U+FFFF), which systemd does not take";

/// An absolute path, normalised: `//`, `/./` and a trailing `/` are removed. `..` is refused,
/// because behind a symlink it leads elsewhere.
pub(crate) fn path(text: &str) -> Result<PathBuf, Refusal> {
    let refuse = |why: &str| Err(Refusal::new(format!("'{text}' {why}"), ABSOLUTE));
    let path = Path::new(text);
    if text.chars().any(char::is_control) {
        return refuse("has a control character in it");
    }
    if text.chars().any(is_noncharacter) {
        return refuse(NONCHARACTER);
    }
    if !path.is_absolute() {
        return refuse("is not absolute");
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return refuse("has '..' in it");
    }
    // In a unit file, trailing blanks are removed and a trailing backslash continues the line.
    if text.ends_with([' ', '\\']) {
        return refuse("ends in a blank or a backslash");
    }
    Ok(path.components().collect())
}

/// Whether one path lies inside the other or both are equal.
pub(crate) fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// The name of an OS user in the form that all tools accept, see systemd's "User/Group Name
/// Syntax". Dots inside the name are allowed, because directory services use them.
pub(crate) fn os_user(name: &str) -> Result<String, Refusal> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if first && rest && !name.ends_with('.') && name.len() <= 31 {
        return Ok(name.to_owned());
    }
    Err(Refusal::new(
        format!("'{name}' is not the name of a user"),
        "at most 31 letters, digits, '_', '-' and '.', the first a letter or '_', the last no '.'",
    ))
}

/// The name of a unit.
pub(crate) fn unit(name: &str) -> Result<UnitName, Refusal> {
    UnitName::new(name).map_err(|error| Refusal { message: error.to_string(), allowed: None })
}

/// `NAME` of a systemd credential, or `encrypted:NAME` of an encrypted one.
pub(crate) fn credential(text: &str) -> Result<SecretSource, Refusal> {
    let (name, source): (_, fn(String) -> SecretSource) = match text.strip_prefix("encrypted:") {
        Some(name) => (name, SecretSource::Encrypted),
        None => (text, SecretSource::Credential),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty()
        && name.len() <= 255
        && name.chars().all(allowed)
        && name != "."
        && name != ".."
    {
        return Ok(source(name.to_owned()));
    }
    let allowed =
        "1 to 255 letters, digits, '.', '_' and '-', after 'encrypted:' if it is encrypted";
    Err(Refusal::new(format!("'{text}' is not the name of a credential"), allowed))
}

/// A calendar event in systemd's normal form.
pub(crate) fn calendar(text: &str) -> Result<String, Refusal> {
    let allowed = "a calendar event as in systemd.time(7), like '*-*-* 02:30:00' (try it with \
                   'systemd-analyze calendar')";
    let calendar = text.parse::<Calendar>().map_err(|error| {
        Refusal::new(format!("'{text}' is not a calendar event: {error}"), allowed)
    })?;
    Ok(calendar.to_string())
}

/// A time span, zero included.
pub(crate) fn timespan(text: &str) -> Result<Timespan, Refusal> {
    text.parse().map_err(|error| {
        Refusal::new(
            format!("{error}"),
            "a time span as in systemd.time(7), like '30min' or '1h 30min'",
        )
    })
}

/// A time span above zero.
pub(crate) fn timespan_above_zero(text: &str) -> Result<Timespan, Refusal> {
    match timespan(text)? {
        none if none.duration().is_zero() => {
            Err(Refusal::new(format!("'{text}' leaves no time at all"), "a time span above zero"))
        }
        some => Ok(some),
    }
}

/// One line that is not blank.
pub(crate) fn one_line(text: &str) -> Result<String, Refusal> {
    if text.chars().any(char::is_control) {
        return Err(Refusal::new("has a control character in it", "one line of text"));
    }
    if text.chars().any(is_noncharacter) {
        return Err(Refusal::new(NONCHARACTER, "one line of text"));
    }
    if text.trim().is_empty() {
        return Err(Refusal::new("is blank", "one line of text"));
    }
    Ok(text.to_owned())
}

/// The name of a PostgreSQL role or database: any text of the right length.
pub(crate) fn postgresql_name(name: &str) -> Result<String, Refusal> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(Refusal::new(
            format!("'{name}' is not a name that PostgreSQL can have"),
            "1 to 63 bytes without NUL",
        ));
    }
    Ok(name.to_owned())
}

/// A whole number from `from` to `to`.
pub(crate) fn number<T: TryFrom<i64> + Into<i64>>(
    value: i64,
    from: i64,
    to: T,
) -> Result<T, Refusal> {
    let to = to.into();
    let number = if (from..=to).contains(&value) { T::try_from(value).ok() } else { None };
    number
        .ok_or_else(|| Refusal::new(format!("{value} is out of range"), format!("{from} to {to}")))
}

/// argv: an absolute program and any arguments that execve(2) accepts. The error has the index of
/// the refused argument, unless the command as a whole is refused.
pub(crate) fn command(argv: &[String]) -> Result<(), (Option<usize>, Refusal)> {
    let Some(program) = argv.first() else {
        return Err((None, Refusal::new("is empty", "a program and its arguments")));
    };
    path(program).map_err(|refusal| (Some(0), refusal))?;
    if program.ends_with('/') {
        return Err((
            Some(0),
            Refusal::new(format!("'{program}' is a directory"), "the absolute path of a program"),
        ));
    }
    for (index, argument) in argv.iter().enumerate() {
        if argument.chars().any(is_noncharacter) {
            return Err((Some(index), Refusal::new(NONCHARACTER, "characters")));
        }
        if argument.contains('\0') {
            return Err((
                Some(index),
                Refusal::new("has a NUL in it", "what a program can be given as an argument"),
            ));
        }
        if argument.len() > ARGUMENT_MAX {
            return Err((
                Some(index),
                Refusal::new(
                    format!("is {} bytes long", argument.len()),
                    format!("{ARGUMENT_MAX} bytes"),
                ),
            ));
        }
    }
    let total: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    if total > COMMAND_MAX {
        return Err((
            None,
            Refusal::new(format!("is {total} bytes long in total"), format!("{COMMAND_MAX} bytes")),
        ));
    }
    Ok(())
}

/// The value of `text` in a list of words.
pub(crate) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Refusal::new(format!("there is no '{text}'"), all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_or_refused() {
        for (text, normal) in [("/a//b/./c/", "/a/b/c"), ("/", "/"), ("/a b/é%$\"'", "/a b/é%$\"'")]
        {
            assert_eq!(path(text).unwrap().to_str(), Some(normal));
        }
        for text in ["", "a/b", "./a", "/a/../b", "/..", "/a\nb", "/a\0b", "/a\u{7f}", "~/a"] {
            assert!(path(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn users_are_names() {
        for name in ["git", "_apt", "gitlab-backup", "john.doe", "A1"] {
            assert!(os_user(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "0",
            "1000",
            "-git",
            "git ",
            "a/b",
            "a:b",
            "é",
            "%i",
            ".git",
            "git.",
            "a\nUser=root",
            &"a".repeat(32),
        ] {
            assert!(os_user(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn commands_hold_what_execve_takes() {
        let argv = |arguments: &[&str]| {
            arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>()
        };
        for good in [&["/bin/x"] as &[&str], &["/bin/x", "", "a b\n%n $HOME \"'\\ é;", "-"]] {
            assert!(command(&argv(good)).is_ok(), "{good:?}");
        }
        let long = "a".repeat(ARGUMENT_MAX + 1);
        for (bad, at) in [
            (&[] as &[&str], None),
            (&["x"], Some(0)),
            (&["/bin/"], Some(0)),
            (&["-/bin/x"], Some(0)),
            (&["/bin/x", "a\0b"], Some(1)),
            (&["/bin/x", "", &long], Some(2)),
        ] {
            assert_eq!(command(&argv(bad)).unwrap_err().0, at, "{bad:.20?}");
        }
        assert!(command(&argv(&["/bin/x", &long[1..]])).is_ok());
        assert_eq!(
            command(&[&argv(&["/bin/x"])[..], &vec![long[1..].to_owned(); 8]].concat())
                .unwrap_err()
                .0,
            None
        );
    }

    #[test]
    fn credentials_are_file_names() {
        assert_eq!(
            credential("gitlab.db-password_1").unwrap(),
            SecretSource::Credential("gitlab.db-password_1".into())
        );
        assert_eq!(
            credential("encrypted:gitlab").unwrap(),
            SecretSource::Encrypted("gitlab".into())
        );
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "é",
            "a\n",
            "encrypted:",
            "encrypted:a:b",
            "encrypted:encrypted:a",
        ] {
            assert!(credential(id).is_err(), "{id:?}");
        }
    }
}
