//! The file as it is written: types and keys checked, values not yet.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Finding, place};

/// A value with its place in the file, or nothing.
pub(super) type Field<T> = Option<Spanned<T>>;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub(super) struct $name { $(pub $field: Field<$type>),* }
    };
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Raw {
    pub gitlab: Gitlab,
    pub schedule: Schedule,
    pub postgresql: Postgresql,
    pub redis: Option<Vec<Redis>>,
    pub files: Files,
    pub repository: Repository,
    pub retention: Retention,
    pub step: Vec<Step>,
}

section!(Gitlab { layout: Layout, writers: Vec<Spanned<String>>, readiness_url: String, max_downtime: String, stop_grace: String });
section!(Schedule { calendar: String, randomized_delay: String });
section!(Postgresql {
    enable: bool, host: String, port: u16, user: String, os_user: String, databases: Vec<Spanned<String>>, jobs: u16,
    password_file: String, password_credential: String, bin_dir: String,
});
section!(Redis { name: String, url: String, password_file: String, password_credential: String, timeout: String });
section!(Files { paths: Vec<Spanned<String>>, exclude: Vec<Spanned<String>>, command: Vec<Spanned<String>>, presync: bool });
section!(Repository { engine: Engine, location: String, password_file: String, password_credential: String, environment_file: String });
section!(Retention { keep_daily: u32, keep_weekly: u32, keep_monthly: u32 });
section!(Step {
    name: String, description: String, stage: Stage, command: Vec<Spanned<String>>, user: String, timeout: String, enable: bool,
});

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Layout {
    Auto,
    Source,
    Custom,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Engine {
    Builtin,
    Restic,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    Prepare,
    Window,
    Store,
    Finish,
}

/// Reads the file. Fails with the first key that is unknown or of the wrong type, or the first error of syntax.
pub(super) fn read(text: &str, source: &Path) -> Result<Raw, ConfigError> {
    let fail = |error: toml::de::Error, key: String| {
        let finding = Finding { place: error.span().map(|span| place(text, &span)), key, message: error.message().replace('\n', ", ") };
        ConfigError::new(source, vec![finding])
    };
    let deserializer = toml::Deserializer::parse(text).map_err(|error| fail(error, String::new()))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        // Spanned values are read through a key of the toml crate's own.
        let path = error.path().to_string().replace(".$__serde_spanned_private_value", "");
        fail(error.into_inner(), if path == "." { String::new() } else { path })
    })
}
