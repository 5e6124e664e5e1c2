//! How a monitoring system is registered.

/// Registers the systems. An entry is the name of a section below `[monitoring]`, which is also the
/// name of the system's module, and the silences and reports that the section can configure.
///
/// The module has `Raw`, the keys of its section, and `check`, which adds to a
/// [`Monitoring`](super::Monitoring) what they configure. Its types implement
/// [`Silence`](super::Silence) or [`Reporter`](super::Reporter).
macro_rules! systems {
    ($($module:ident {
        $(silence $silence:ident($silenced:ty);)*
        $(report $report:ident($reporter:ty);)*
    })*) => {
        /// `[monitoring]` as it is written.
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub(crate) struct Raw {
            on_error: $crate::schema::Field<String>,
            grace: $crate::schema::Field<String>,
            wait: $crate::schema::Field<String>,
            $($module: $crate::schema::Field<$module::Raw>,)*
        }

        /// Checks the sections of the systems, and adds to `monitoring` what they configure.
        fn check_systems(
            checker: &mut $crate::schema::Checker,
            raw: Raw,
            monitoring: &mut Monitoring,
        ) {
            $(if let Some(table) = raw.$module {
                let key = format!("monitoring.{}", stringify!($module).replace('_', "-"));
                let section = $crate::schema::Section::of(key, Some(&table));
                $module::check(checker, &section, table.into_inner(), monitoring);
            })*
        }

        /// A configured silence. Its JSON names the secrets that it needs and holds none, so it can
        /// be recorded.
        #[allow(missing_docs, reason = "each variant is documented where its type is")]
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum SilenceConfig {
            $($($silence($silenced),)*)*
        }

        impl SilenceConfig {
            /// The system that is silenced.
            pub fn system(&self) -> &dyn Silence {
                match self {
                    $($(Self::$silence(system) => system,)*)*
                }
            }
        }

        /// A configured receiver of reports.
        #[allow(missing_docs, reason = "each variant is documented where its type is")]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ReportConfig {
            $($($report($reporter),)*)*
        }

        impl ReportConfig {
            /// The system that receives the report.
            pub fn system(&self) -> &dyn Reporter {
                match self {
                    $($(Self::$report(system) => system,)*)*
                }
            }
        }
    };
}

pub(super) use systems;
