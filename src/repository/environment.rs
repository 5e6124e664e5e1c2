//! `environment-file`: variables for restic, in the syntax of systemd.exec(5) `EnvironmentFile=`.
//! The process that opens the repository, a unit or a command, reads the file and passes the
//! variables to restic only.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use anyhow::{Context, Result, ensure};

use crate::host::own;

/// Reads the variables and their values.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>> {
    let text = own::read_text(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("environment-file {}", path.display()))
}

/// Parses one variable on each line. `#` and `;` begin comments. Values are quoted as in a shell,
/// but nothing in them is expanded.
fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(first) = rest.peek().copied() {
        match first {
            '\n' => {
                line += 1;
                rest.next();
            }
            ' ' | '\t' | '\r' => drop(rest.next()),
            '#' | ';' => while rest.next_if(|c| *c != '\n').is_some() {},
            _ => {
                let mut name = String::new();
                while let Some(c) = rest.next_if(|c| !matches!(c, '=' | '\n')) {
                    name.push(c);
                }
                ensure!(
                    rest.next_if_eq(&'=').is_some() && is_name(name.trim()),
                    "line {line}: not of the form NAME=VALUE"
                );
                let (value, lines) =
                    value(&mut rest).with_context(|| format!("line {line}: {}", name.trim()))?;
                line += lines;
                variables.push((name.trim().to_owned(), value));
            }
        }
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A value up to the end of its line, and how many ends of lines are in it.
fn value(rest: &mut Peekable<Chars<'_>>) -> Result<(String, usize)> {
    let (mut value, mut lines, mut bare) = (String::new(), 0, 0);
    // A quote character opens a quote only at the start of the value or after a quoted part.
    let mut begins = true;
    while let Some(c) = rest.next_if(|c| *c != '\n') {
        match c {
            ' ' | '\t' | '\r' if begins => continue,
            '\\' => match rest.next() {
                Some('\n') => lines += 1,
                Some(escaped) => {
                    value.push(escaped);
                    bare = value.len();
                }
                None => {}
            },
            quote @ ('\'' | '"') if begins => {
                loop {
                    match rest.next().context("a quote is not closed")? {
                        end if end == quote => break,
                        '\\' if quote == '"' => {
                            match rest.next().context("a quote is not closed")? {
                                '\n' => lines += 1,
                                escaped @ ('"' | '\\' | '`' | '$') => value.push(escaped),
                                other => value.extend(['\\', other]),
                            }
                        }
                        other => {
                            lines += usize::from(other == '\n');
                            value.push(other);
                        }
                    }
                }
                bare = value.len();
                continue;
            }
            ' ' | '\t' | '\r' => value.push(c),
            other => {
                value.push(other);
                bare = value.len();
            }
        }
        begins = false;
    }
    // Unquoted blanks at the end of a line do not belong to the value.
    value.truncate(bare);
    Ok((value, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What systemd 252 reads from the same lines: `systemd-run --property=EnvironmentFile=… env`.
    #[test]
    fn values_are_read_as_systemd_reads_them() {
        let text = "# a comment\n; another\n\nPLAIN=a b # c  \n  INDENTED = x\nSINGLE='a \"b\\n \
                    $c'\nDOUBLE=\"a \\\"b\\\" \\n \\$c\"\nBOTH=a'b c'\"d\"\nPARTS='a \
                    b' \"c\"\nESCAPED=a\\ b\\\nc\nEMPTY=\nCRLF=v\r\n\
                    LINES='1\n2'\nLAST=\"x\"";
        let variables = parse(text).unwrap();
        let expected = [
            ("PLAIN", "a b # c"),
            ("INDENTED", "x"),
            ("SINGLE", "a \"b\\n $c"),
            ("DOUBLE", "a \"b\" \\n $c"),
            ("BOTH", "a'b c'\"d\""),
            ("PARTS", "a bc"),
            ("ESCAPED", "a bc"),
            ("EMPTY", ""),
            ("CRLF", "v"),
            ("LINES", "1\n2"),
            ("LAST", "x"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_invalid_line_is_an_error_with_its_number() {
        for (text, line) in [
            ("A=1\nexport B=2\n", "line 2"),
            ("A='x\ny'\n\nB", "line 4"),
            ("A=\"x\n", "line 1"),
            ("1A=x", "line 1"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(line), "{text:?}: {error}");
        }
    }
}
