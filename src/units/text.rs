//! Escape by type: what may stand in a unit file is a [`Text`], and a [`Text`] can only be built
//! escaped.
//!
//! The rules are systemd's own, not a shell's: systemd.syntax(7), systemd.service(5) COMMAND LINES,
//! systemd.unit(5) SPECIFIERS.

use std::fmt::{self, Display, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Text that stands in a unit file as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text {
    /// A number, a time span or another value whose letters and digits cannot mean anything to
    /// systemd.
    pub fn plain(value: impl Display) -> Self {
        let text: String = value.to_string();
        debug_assert!(text.chars().all(|c| !c.is_control() && c != '%'));
        Self(text)
    }

    /// One line of prose, as `Description=` takes it: `%` doubled, control characters shown as
    /// spaces, no continuation at the end.
    pub fn prose(value: &str) -> Self {
        let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self(line.trim().trim_end_matches('\\').replace('%', "%%"))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names separated by spaces: units, users.
    pub fn names(values: impl IntoIterator<Item = impl Display>) -> Self {
        let names: Vec<String> =
            values.into_iter().map(|value| value.to_string().replace('%', "%%")).collect();
        Self(names.join(" "))
    }

    /// The same; nothing for none.
    pub fn some_names(values: impl IntoIterator<Item = impl Display>) -> Option<Self> {
        Some(Self::names(values)).filter(|names| !names.is_empty())
    }

    /// A command line that reaches the process byte for byte. `:` turns `$` into an ordinary
    /// character for the whole line; every word is quoted, so that `;` does not end the command.
    pub fn command(argv: &[String]) -> Self {
        let words: Vec<String> = argv.iter().map(|word| quote(word.as_bytes(), word)).collect();
        Self(format!(":{}", words.join(" ")))
    }

    /// Paths in a list such as `ReadWritePaths=`.
    pub fn paths<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let words: Vec<String> = paths
            .into_iter()
            .map(|path| quote(path.as_os_str().as_bytes(), &path.to_string_lossy()))
            .collect();
        Self(words.join(" "))
    }

    /// A whole line, where the setting's name is not the template's to choose.
    pub fn setting(name: &'static str, value: &Self) -> Self {
        Self(format!("{name}={value}"))
    }

    /// A path that takes the rest of its line, such as in `EnvironmentFile=` and
    /// `LoadCredential=ID:PATH`, where quotes are not removed.
    pub fn path(path: &str) -> Self {
        Self(path.replace('%', "%%"))
    }
}

/// A word in double quotes with C-style escapes and doubled specifiers.
fn quote(bytes: &[u8], text: &str) -> String {
    debug_assert_eq!(bytes, text.as_bytes());
    let mut word = String::with_capacity(text.len() + 2);
    word.push('"');
    for c in text.chars() {
        match c {
            '"' => word.push_str("\\\""),
            '\\' => word.push_str("\\\\"),
            '%' => word.push_str("%%"),
            '\n' => word.push_str("\\n"),
            '\t' => word.push_str("\\t"),
            '\r' => word.push_str("\\r"),
            c if c.is_control() => {
                for byte in c.to_string().bytes() {
                    let _ = write!(word, "\\x{byte:02x}");
                }
            }
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_command_line_means_anything_to_systemd() {
        let argv =
            ["/bin/echo", "a b", "%n", "$HOME", "\"'\\", ";", "", "new\nline", "é", "trailing\\"]
                .map(str::to_owned);
        assert_eq!(
            Text::command(&argv).to_string(),
            r#":"/bin/echo" "a b" "%%n" "$HOME" "\"'\\" ";" "" "new\nline" "é" "trailing\\""#
        );
    }

    #[test]
    fn a_description_stays_on_its_line() {
        assert_eq!(Text::prose(" 100 %\n[Service]\\").to_string(), "100 %% [Service]");
    }
}
