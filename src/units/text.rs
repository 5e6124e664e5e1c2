//! Escaping by type: templates of unit files only take [`Text`], and a [`Text`] can only be
//! constructed escaped.
//!
//! The rules are systemd's own, not a shell's: systemd.syntax(7), systemd.service(5) COMMAND LINES,
//! systemd.unit(5) SPECIFIERS.

use std::fmt::{self, Display, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Text that is escaped for a unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text {
    /// A number, a time span or another value without characters that are special to systemd.
    pub fn plain(value: impl Display) -> Self {
        let text: String = value.to_string();
        debug_assert!(text.chars().all(|c| !c.is_control() && c != '%'));
        Self(text)
    }

    /// One line of prose, for `Description=` and comments: doubles `%`, replaces control characters
    /// by spaces, and removes a trailing `\`, which would continue the line.
    pub fn prose(value: &str) -> Self {
        let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self(line.trim().trim_end_matches('\\').replace('%', "%%"))
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names separated by spaces: units, users.
    pub fn names(values: impl IntoIterator<Item = impl Display>) -> Self {
        let names: Vec<String> =
            values.into_iter().map(|value| value.to_string().replace('%', "%%")).collect();
        Self(names.join(" "))
    }

    /// Names separated by spaces; `None` if there are none.
    pub fn some_names(values: impl IntoIterator<Item = impl Display>) -> Option<Self> {
        Some(Self::names(values)).filter(|names| !names.is_empty())
    }

    /// A command line whose words reach the process unchanged. The prefix `:` disables expansion of
    /// `$`; every word is quoted, so that `;` does not separate commands.
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

    /// A whole line `NAME=VALUE`, for templates that do not fix the name.
    pub fn setting(name: &'static str, value: &Self) -> Self {
        Self(format!("{name}={value}"))
    }

    /// A path that extends to the end of the line, as in `EnvironmentFile=` and
    /// `LoadCredential=ID:PATH`. systemd does not remove quotes there.
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
    fn special_characters_of_a_command_line_are_escaped() {
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
