//! What is left out: patterns of gitignore(5), as if they stood in the root directory of the host.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use anyhow::{Context, Result, anyhow, ensure};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns; the last that matches decides, and `!` takes back what an earlier one has left
/// out.
#[derive(Debug, Clone)]
pub struct Exclude(Gitignore);

impl Exclude {
    /// Fails with the first pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        for pattern in patterns {
            let checked = checked(pattern).map_err(|error| anyhow!("'{pattern}' {error}"))?;
            builder.add_line(None, &checked).with_context(|| format!("'{pattern}'"))?;
        }
        Ok(Self(builder.build()?))
    }

    /// Nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this entry is left out, and with a directory all that is in it. Asked for every
    /// entry in the window: without patterns it costs nothing.
    pub fn matches(&self, path: &Path, is_directory: bool) -> bool {
        !self.0.is_empty() && self.0.matched(path, is_directory).is_ignore()
    }

    /// Whether this directory is left out, or one that it lies in.
    pub fn leaves_out(&self, directory: &Path) -> bool {
        directory.ancestors().any(|path| path.parent().is_some() && self.matches(path, true))
    }
}

/// The pattern as the library takes it, which knows `{a,b}`, and of classes no names.
fn checked(pattern: &str) -> Result<String> {
    ensure!(
        !pattern.starts_with('#'),
        "is a comment in gitignore(5): a name that begins with it is written '\\#'"
    );
    ensure!(
        !pattern.ends_with([' ', '\t', '\r']) || pattern.ends_with("\\ "),
        "ends with a blank, which gitignore(5) ignores unless it is written '\\ '"
    );
    let (back, names) = pattern.strip_prefix('!').map_or(("", pattern), |names| ("!", names));
    // By the documentation they are one, by git's own program it depends.
    ensure!(
        names.split('/').all(|name| !name.contains("**") || name == "**"),
        "has a '**' beside other characters: write '*'"
    );
    // The same, and a '/' in a class is none between names.
    let anywhere =
        if names.trim_end_matches('/').contains('/') || names == "/" { "" } else { "**/" };
    let mut checked = format!("{back}{anywhere}");
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

/// The rest of a class, with its end, as one that matches no `/`.
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
                    "has a class with the range '{first}-{last}', in which '/' is: name its characters"
                );
                ranges.extend([first, '-', last]);
            }
            Some(None) => singles.extend([first, '-']),
            None => singles.push(first),
        }
    }
    ensure!(!singles.contains(&'/'), "has a '/' in a class: git matches nothing with it");
    // Where each means itself.
    let takes =
        |char: char| if singles.contains(&char) { String::from(char) } else { String::new() };
    let others: String = singles.iter().filter(|char| !matches!(char, ']' | '-')).collect();
    Ok(format!(
        "[{}{}{}{others}{ranges}{}]",
        if not { "!" } else { "" },
        takes(']'),
        if not { "/" } else { "" },
        takes('-')
    ))
}
