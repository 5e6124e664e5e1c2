//! Cleans and prints text. Names and messages from other users may contain control sequences for
//! the terminal, or line ends that fake a second line.
//!
//! Control characters (C0, DEL, C1), line separators and characters that change the direction of
//! writing are printed as escapes, bytes that are not UTF-8 as `\xNN`. Only this module writes to
//! standard output and standard error, which the lints `print_stdout` and `print_stderr` enforce.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use serde::Serialize;

/// Whether a character would control the terminal or mislead the reader.
fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Escapes `text`, which becomes one line.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => cleaned.extend(character.escape_default()),
            character if misleads(character) && (character as u32) < 0x80 => {
                cleaned.push_str(&format!("\\x{:02x}", character as u32))
            }
            character if misleads(character) => cleaned.extend(character.escape_unicode()),
            character => cleaned.push(character),
        }
    }
    Cow::Owned(cleaned)
}

/// The same for bytes that need not be UTF-8.
pub fn bytes(bytes: &[u8]) -> String {
    let mut cleaned = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        cleaned.push_str(&clean(chunk.valid()));
        cleaned.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    cleaned
}

/// The same for a path.
pub fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_bytes())
}

/// Escapes several lines, and indents all except the first.
pub fn lines(text: &str) -> String {
    text.trim_end().lines().map(clean).collect::<Vec<_>>().join("\n  ")
}

/// An error with its causes, from the outermost to the innermost. Leaves out a cause that an outer
/// message contains already.
pub fn why(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let core = cause.split(" (os error ").next().unwrap_or(&cause);
        if text.is_empty() {
            text = cause;
        } else if !text.contains(core) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}

/// The error for a program that could not be started.
pub fn cannot_run(program: impl AsRef<Path>, error: &io::Error) -> anyhow::Error {
    let program = path(program.as_ref());
    match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("cannot run {program}: it is not installed"),
        _ => anyhow::anyhow!("cannot run {program}: {error}"),
    }
}

/// Formats a value as JSON, with the same characters escaped.
///
/// # Errors
/// If it cannot be JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    // These characters only occur in strings, where `\u` stands for them.
    let mut cleaned = String::new();
    for character in serde_json::to_string_pretty(value)?.chars() {
        match character {
            '\n' => cleaned.push('\n'),
            character if misleads(character) => {
                cleaned.push_str(&format!("\\u{:04x}", character as u32))
            }
            character => cleaned.push(character),
        }
    }
    Ok(cleaned)
}

/// The first error of writing to standard output.
static UNHEARD: OnceLock<io::Error> = OnceLock::new();

/// Writes a line to standard output; see [`say!`](crate::say). A closed pipe is not an error: the
/// command continues.
pub fn out(line: &str) {
    whole(&format!("{line}\n"));
}

/// The same for text that has its line ends already.
pub fn whole(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = UNHEARD.set(error);
    }
}

/// The first error of writing to standard output, except a closed pipe.
pub fn unheard() -> Option<&'static io::Error> {
    UNHEARD.get()
}

/// Writes a line to standard error; see [`note!`](crate::note).
pub fn err(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Prints one clean line.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::host::text::out(&$crate::host::text::clean(&format!($($words)*))) };
}

/// Prints one clean line on standard error.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => { $crate::host::text::err(&$crate::host::text::clean(&format!($($words)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b]0;title\x07\r\n\u{9b}2J\u{202e}\u{2066}\x7f\u{2028}z";

    #[test]
    fn control_characters_are_escaped() {
        let cleaned = clean(HOSTILE);
        assert_eq!(cleaned, "a\\x1b]0;title\\x07\\r\\n\\u{9b}2J\\u{202e}\\u{2066}\\x7f\\u{2028}z");
        assert!(!cleaned.contains(misleads));
        assert!(matches!(clean("ümläut → /a b\\c"), Cow::Borrowed("ümläut → /a b\\c")));
        assert_eq!(bytes(b"a\xff\x1bb\xc3\x28"), "a\\xff\\x1bb\\xc3(");
        assert_eq!(path(Path::new("/a\nb")), "/a\\nb");
        assert_eq!(lines("first\nok   x: y\r\n"), "first\n  ok   x: y");
    }

    #[test]
    fn each_cause_is_printed_once() {
        let refused = || io::Error::from_raw_os_error(111);
        let error = anyhow::Error::new(refused())
            .context("Connection refused (os error 111)")
            .context("cannot ask Redis 'main'");
        assert_eq!(why(&error), "cannot ask Redis 'main': Connection refused (os error 111)");
        let error = anyhow::Error::new(refused()).context("cannot ask /run/a: Connection refused");
        assert_eq!(why(&error), "cannot ask /run/a: Connection refused");
        assert_eq!(why(&anyhow::anyhow!("b").context("a")), "a: b");
        assert_eq!(
            why(&cannot_run("/usr/bin/psql", &io::Error::from_raw_os_error(13))),
            "cannot run /usr/bin/psql: Permission denied (os error 13)"
        );
    }

    #[test]
    fn json_is_escaped_and_has_the_same_meaning() {
        let text = json(&vec![HOSTILE]).unwrap();
        assert!(!text.replace('\n', "").contains(misleads), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [HOSTILE]);
    }
}
