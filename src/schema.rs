//! How a section of the configuration is read and checked: fields that know their position in the
//! file, rules for single values, and a checker that collects everything it refuses.
//!
//! Pure. Knows no section: each of them is described by its owner, in `config` or `monitoring`.

pub(crate) mod rules;

use toml::Spanned;

use crate::values::SecretSource;
use rules::Refusal;

/// A value that may be left out, with its position in the file.
pub(crate) type Field<T> = Option<Spanned<T>>;
/// A list whose elements each have their position.
pub(crate) type List = Field<Vec<Spanned<String>>>;

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; `None` for a problem of the whole file.
    pub line: Option<usize>,
    /// Counted from 1, in characters.
    pub column: Option<usize>,
    /// The path of the key, such as `postgresql.port` or `step[1].command`; may be empty.
    pub key: String,
    /// The problem.
    pub message: String,
    /// The allowed values.
    pub allowed: Option<String>,
}

/// The value of a field, or the default of one that was left out.
pub(crate) fn inner<T: Default>(field: Field<T>) -> T {
    field.map(Spanned::into_inner).unwrap_or_default()
}

/// A table of the file, which may be missing.
pub(crate) struct Section {
    key: String,
    offset: Option<usize>,
}

impl Section {
    /// The table `key`.
    pub(crate) fn of<T>(key: impl Into<String>, table: Option<&Spanned<T>>) -> Self {
        Self { key: key.into(), offset: table.map(|table| table.span().start) }
    }

    /// The position of a missing key: that of the table, if there is one.
    pub(crate) fn place(&self, name: &str) -> KeyPlace {
        KeyPlace { key: format!("{}.{name}", self.key), offset: self.offset }
    }

    /// The position of a key's value, or of the missing key.
    pub(crate) fn field<T>(&self, name: &str, field: Option<&Spanned<T>>) -> KeyPlace {
        KeyPlace {
            offset: field.map(|value| value.span().start).or(self.offset),
            ..self.place(name)
        }
    }
}

/// A key and its position.
#[derive(Debug, Clone)]
pub(crate) struct KeyPlace {
    pub(crate) key: String,
    offset: Option<usize>,
}

/// Checks fields, and collects a finding for each value that it refuses.
pub(crate) struct Checker<'a> {
    text: &'a str,
    findings: Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// A checker of the file whose content is `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, findings: Vec::new() }
    }

    /// The findings.
    pub(crate) fn into_findings(self) -> Vec<Problem> {
        self.findings
    }

    /// Validates the table `key`: `check` gets the section, which knows the positions of its keys,
    /// and the value. An absent table is the default value, with every key absent.
    pub(crate) fn table<T: Default, U>(
        &mut self,
        key: &str,
        table: Field<T>,
        check: impl FnOnce(&mut Self, &Section, T) -> U,
    ) -> U {
        let section = Section::of(key, table.as_ref());
        check(self, &section, inner(table))
    }

    /// Records a finding.
    pub(crate) fn refuse(&mut self, place: &KeyPlace, refusal: Refusal) {
        let (line, column) = place.offset.map(|offset| position(self.text, offset)).unzip();
        self.findings.push(Problem {
            line,
            column,
            key: place.key.clone(),
            message: refusal.message,
            allowed: refusal.allowed,
        });
    }

    /// Checks a value. `None` if it was left out or is refused.
    pub(crate) fn value<T, U>(
        &mut self,
        section: &Section,
        name: &str,
        field: Option<&Spanned<T>>,
        rule: impl FnOnce(&T) -> Result<U, Refusal>,
    ) -> Option<U> {
        let field = field?;
        match rule(field.get_ref()) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse(&section.field(name, Some(field)), refusal);
                None
            }
        }
    }

    /// Checks each element of a list, and leaves out those that are refused. Refuses a value that
    /// occurs twice.
    pub(crate) fn list<U: PartialEq>(
        &mut self,
        section: &Section,
        name: &str,
        list: &List,
        rule: impl Fn(&String) -> Result<U, Refusal>,
    ) -> Option<Vec<(KeyPlace, U)>> {
        let mut taken: Vec<(KeyPlace, U)> = Vec::new();
        for (index, element) in list.as_ref()?.get_ref().iter().enumerate() {
            let place = section.field(&format!("{name}[{index}]"), Some(element));
            match rule(element.get_ref()) {
                Ok(value) => match taken.iter().find(|(_, other)| *other == value) {
                    Some((first, _)) => {
                        let refusal = Refusal::new(
                            format!(
                                "'{}' is listed twice, first as {}",
                                element.get_ref(),
                                first.key
                            ),
                            "each value once",
                        );
                        self.refuse(&place, refusal);
                    }
                    None => taken.push((place, value)),
                },
                Err(refusal) => self.refuse(&place, refusal),
            }
        }
        Some(taken)
    }

    /// Checks the key `command`: an absolute program and its arguments.
    pub(crate) fn command(&mut self, section: &Section, list: &List) -> Option<Vec<String>> {
        self.named_command(section, "command", list)
    }

    /// Checks a command with another key.
    pub(crate) fn named_command(
        &mut self,
        section: &Section,
        name: &str,
        list: &List,
    ) -> Option<Vec<String>> {
        let list = list.as_ref()?;
        let strings: Vec<_> =
            list.get_ref().iter().map(|argument| argument.get_ref().clone()).collect();
        match rules::command(&strings) {
            Ok(()) => Some(strings),
            Err((index, refusal)) => {
                let element = index
                    .and_then(|index| list.get_ref().get(index).map(|element| (index, element)));
                let place = match element {
                    Some((index, element)) => {
                        section.field(&format!("{name}[{index}]"), Some(element))
                    }
                    None => section.field(name, Some(list)),
                };
                self.refuse(&place, refusal);
                Some(strings)
            }
        }
    }

    /// Checks `password-file` and `password-credential`, of which one may be set.
    pub(crate) fn secret(
        &mut self,
        section: &Section,
        file: &Field<String>,
        credential: &Field<String>,
    ) -> Option<SecretSource> {
        self.named_secret(section, "password", file, credential)
    }

    /// Checks `NAME-file` and `NAME-credential`, of which one may be set.
    pub(crate) fn named_secret(
        &mut self,
        section: &Section,
        name: &str,
        file: &Field<String>,
        credential: &Field<String>,
    ) -> Option<SecretSource> {
        let (file_key, credential_key) = (format!("{name}-file"), format!("{name}-credential"));
        if file.is_some() && credential.is_some() {
            let message = format!("contradicts {file_key}: a {name} is in one place");
            self.refuse(
                &section.field(&credential_key, credential.as_ref()),
                Refusal::new(message, "one of the two"),
            );
        }
        let path = self
            .value(section, &file_key, file.as_ref(), |path| rules::path(path))
            .map(SecretSource::File);
        let id =
            self.value(section, &credential_key, credential.as_ref(), |id| rules::credential(id));
        path.or(id)
    }
}

/// Line and column, counted from 1, of the byte at `offset`.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before.get(line_start..).unwrap_or_default().chars().count() + 1,
    )
}
