//! The file as written: every key is optional, every value has its place, and only types are
//! checked.

use serde::Deserialize;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::monitoring;
pub(super) use crate::schema::{Field, List};
use crate::schema::{Problem, position};

macro_rules! tables {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Debug, Default, Deserialize)]
            #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
            pub(super) struct $name {
                $(pub(super) $field: $type,)*
            }
        )*
    };
}

tables! {
    Raw {
        gitlab: Field<Gitlab>,
        schedule: Field<Schedule>,
        postgresql: Field<Postgresql>,
        redis: Field<Vec<Spanned<Redis>>>,
        files: Field<Files>,
        repository: Field<Repository>,
        retention: Field<Retention>,
        verify: Field<Verify>,
        monitoring: Field<monitoring::Raw>,
        step: Field<Vec<Spanned<Step>>>,
    }
    Gitlab {
        layout: Field<String>,
        writers: List,
        stays_up: List,
        quiesce: Field<String>,
        readiness_url: Field<String>,
        max_downtime: Field<String>,
        stop_grace: Field<String>,
        settle: Field<String>,
        door: List,
        gitaly: List,
        background: List,
        drain: Field<String>,
        front: List,
        max_hold: Field<String>,
        hold_fallback: Field<String>,
        proxy: Field<Vec<Spanned<Proxy>>>,
    }
    Proxy {
        name: Field<String>,
        start: List,
        stop: List,
        status: List,
        timeout: Field<String>,
        after: List,
    }
    Schedule {
        calendar: Field<String>,
        randomized_delay: Field<String>,
    }
    Postgresql {
        enable: Field<bool>,
        host: Field<String>,
        port: Field<i64>,
        user: Field<String>,
        os_user: Field<String>,
        restore_user: Field<String>,
        restore_os_user: Field<String>,
        databases: List,
        jobs: Field<i64>,
        ddl_wait: Field<String>,
        password_file: Field<String>,
        password_credential: Field<String>,
        bin_dir: Field<String>,
    }
    Redis {
        name: Field<String>,
        url: Field<String>,
        password_file: Field<String>,
        password_credential: Field<String>,
        timeout: Field<String>,
        unit: Field<String>,
    }
    Files {
        paths: List,
        exclude: List,
        omit: List,
        command: List,
        presync: Field<bool>,
        configuration: List,
        snapshot: Field<String>,
        lvm_snapshot_size: Field<String>,
        path: Field<Vec<Spanned<FilesPath>>>,
    }
    FilesPath {
        path: Field<String>,
        snapshot: Field<String>,
    }
    Repository {
        engine: Field<String>,
        location: Field<String>,
        password_file: Field<String>,
        password_credential: Field<String>,
        environment_file: Field<String>,
    }
    Retention {
        keep_last: Field<i64>,
        keep_daily: Field<i64>,
        keep_weekly: Field<i64>,
        keep_monthly: Field<i64>,
        keep_yearly: Field<i64>,
        keep_min: Field<i64>,
        keep_within: Field<String>,
    }
    Verify {
        calendar: Field<String>,
        randomized_delay: Field<String>,
        drill: Field<bool>,
        read_data: Field<bool>,
        all_repositories: Field<bool>,
    }
    Step {
        name: Field<String>,
        description: Field<String>,
        stage: Field<String>,
        command: List,
        user: Field<String>,
        timeout: Field<String>,
        enable: Field<bool>,
    }
}

/// Parses `text`. Keys with an unknown name or a value of the wrong type are reported and left out,
/// so that the rest can still be validated. With a syntax error, only that is reported.
pub(super) fn read(text: &str) -> (Option<Raw>, Vec<Problem>) {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return (None, errors.iter().map(|error| finding(text, String::new(), error)).collect());
    }
    let mut findings = Vec::new();
    loop {
        match serde_path_to_error::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(raw) => return (Some(raw), findings),
            Err(error) => {
                let path = key_path(error.path());
                findings.push(finding(text, format_path(&path), error.inner()));
                // Each iteration removes at least one key, so the loop ends.
                if !remove(table.get_mut(), &path) {
                    return (None, findings);
                }
            }
        }
    }
}

enum Key {
    Name(String),
    Index(usize),
}

/// The keys of `path`, without the reserved field names (`$__…`) that `Spanned` is deserialized
/// with.
fn key_path(path: &serde_path_to_error::Path) -> Vec<Key> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Key::Index(*index)),
            Segment::Map { key } if !key.starts_with("$__") => Some(Key::Name(key.clone())),
            _ => None,
        })
        .collect()
}

/// `path` in the form `step[1].command`.
fn format_path(path: &[Key]) -> String {
    let mut text = String::new();
    for key in path {
        match key {
            Key::Name(name) if text.is_empty() => text.push_str(name),
            Key::Name(name) => text.push_str(&format!(".{name}")),
            Key::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Removes the value at `path`. Of a list, removes the whole list, so that no other element changes
/// its index. Returns whether a value was removed.
fn remove(table: &mut DeTable<'_>, path: &[Key]) -> bool {
    let Some((Key::Name(name), rest)) = path.split_first() else { return false };
    if let Some(value) = table.get_mut(name.as_str()) {
        let inner = match (value.get_mut(), rest) {
            (DeValue::Table(inner), rest) => Some((inner, rest)),
            (DeValue::Array(array), [Key::Index(index), rest @ ..]) => {
                match array.get_mut(*index).map(Spanned::get_mut) {
                    Some(DeValue::Table(inner)) => Some((inner, rest)),
                    _ => None,
                }
            }
            _ => None,
        };
        if inner.is_some_and(|(inner, rest)| remove(inner, rest)) {
            return true;
        }
    }
    table.remove(name.as_str()).is_some()
}

/// Converts an error of serde, `…, expected …`: the second half says what is allowed.
fn finding(text: &str, key: String, error: &toml::de::Error) -> Problem {
    let (line, column) = error.span().map(|span| position(text, span.start)).unzip();
    let (message, allowed) = match error.message().split_once(", expected ") {
        Some((message, allowed)) => {
            (message, Some(in_toml_words(&allowed.trim_start_matches("one of ").replace('`', ""))))
        }
        None => (error.message(), None),
    };
    let message = if message.starts_with("unknown field ") {
        "there is no such key".to_owned()
    } else {
        message.replace('`', "'")
    };
    Problem { line, column, key, message, allowed }
}

/// Replaces serde's names of types, which are Rust's, by words for TOML.
fn in_toml_words(allowed: &str) -> String {
    match allowed {
        "i64" => "a whole number",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a table",
        // Quote punctuation, which would otherwise look like part of the message.
        sign if !sign.chars().any(char::is_alphanumeric) => return format!("'{sign}'"),
        other => other,
    }
    .to_owned()
}
