//! Names and strings where they become text.

/// How libpq's programs take the name of a database, which is more than a name to them if it has a
/// `=`.
pub(crate) fn dbname(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A name in SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_or_string_leaves_its_quotes() {
        assert_eq!(identifier("a\"b\n\\!"), "\"a\"\"b\n\\!\"");
        assert_eq!(literal("it's \\' \n$"), "E'it''s \\\\'' \n$'");
    }
}
