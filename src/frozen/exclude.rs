//! Patterns of the paths to leave out, as in a gitignore(5) file in the root directory of the host.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use anyhow::{Context, Result, anyhow, ensure};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns. The last that matches decides, and `!` includes a path again.
#[derive(Debug, Clone)]
pub struct Exclude(Gitignore);

impl Exclude {
    /// Parses the patterns. Fails with the first that is invalid.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        for pattern in patterns {
            let checked = checked(pattern).map_err(|error| anyhow!("'{pattern}' {error}"))?;
            builder.add_line(None, &checked).with_context(|| format!("'{pattern}'"))?;
        }
        Ok(Self(builder.build()?))
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this entry is left out, a directory with everything in it. Called for every entry in
    /// the window, so it must cost nothing without patterns.
    pub fn matches(&self, path: &Path, is_directory: bool) -> bool {
        !self.0.is_empty() && self.0.matched(path, is_directory).is_ignore()
    }

    /// Whether this directory or one above it is left out.
    pub fn leaves_out(&self, directory: &Path) -> bool {
        directory.ancestors().any(|path| path.parent().is_some() && self.matches(path, true))
    }
}

/// Translates a pattern for the library, which expands `{a,b}` and knows no named classes.
fn checked(pattern: &str) -> Result<String> {
    ensure!(
        !pattern.starts_with('#'),
        "is a comment in gitignore(5): a name that begins with it is written '\\#'"
    );
    ensure!(
        !pattern.ends_with([' ', '\t', '\r']) || pattern.ends_with("\\ "),
        "ends with a blank, which gitignore(5) ignores unless it is written '\\ '"
    );
    let (negation, names) = pattern.strip_prefix('!').map_or(("", pattern), |names| ("!", names));
    // The documentation says that it equals '*', but git's own program does not always treat it so.
    ensure!(
        names.split('/').all(|name| !name.contains("**") || name == "**"),
        "has a '**' beside other characters: write '*'"
    );
    // A pattern without '/' matches in any directory. The library would also count a '/' in a
    // class.
    let anywhere =
        if names.trim_end_matches('/').contains('/') || names == "/" { "" } else { "**/" };
    let mut checked = format!("{negation}{anywhere}");
    let mut rest = names.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\\' => {
                let escaped = rest
                    .next()
                    .ok_or_else(|| anyhow!("ends with a backslash: git matches nothing with it"))?;
                checked.extend(['\\', escaped]);
            }
            '{' | '}' => checked.extend(['\\', char]),
            '[' => checked.push_str(&class(&mut rest)?),
            _ => checked.push(char),
        }
    }
    Ok(checked)
}

/// Translates the rest of a class up to its `]` to a class that does not match `/`.
fn class(rest: &mut Peekable<Chars<'_>>) -> Result<String> {
    let not = rest.next_if(|char| matches!(char, '!' | '^')).is_some();
    let mut text = String::new();
    loop {
        let char = rest
            .next()
            .ok_or_else(|| anyhow!("has a '[' without its ']': git matches nothing with it"))?;
        ensure!(
            char != '[' || rest.peek() != Some(&':'),
            "has a class with a name like '[:alpha:]': name its characters"
        );
        ensure!(char != '\\', "has a backslash in a class: name its characters without");
        if char == ']' && !text.is_empty() {
            break;
        }
        text.push(char);
    }
    let (mut ranges, mut singles) = (String::new(), Vec::new());
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        let last = chars.next_if_eq(&'-').map(|_| chars.next());
        match last {
            Some(Some(last)) => {
                let is_plain = |char: &char| !matches!(char, '-' | ']' | '[');
                ensure!(
                    is_plain(&first) && is_plain(&last) && first <= last,
                    "has a class with the range '{first}-{last}': name its characters"
                );
                ensure!(
                    !(first..=last).contains(&'/'),
                    "has a class with the range '{first}-{last}', in which '/' is: name its \
                     characters"
                );
                ranges.extend([first, '-', last]);
            }
            Some(None) => singles.extend([first, '-']),
            None => singles.push(first),
        }
    }
    ensure!(!singles.contains(&'/'), "has a '/' in a class: git matches nothing with it");
    // ']' is literal at the beginning of a class, '-' at its end.
    let literal =
        |char: char| if singles.contains(&char) { String::from(char) } else { String::new() };
    let others: String = singles.iter().filter(|char| !matches!(char, ']' | '-')).collect();
    Ok(format!(
        "[{}{}{}{others}{ranges}{}]",
        if not { "!" } else { "" },
        literal(']'),
        if not { "/" } else { "" },
        literal('-')
    ))
}
