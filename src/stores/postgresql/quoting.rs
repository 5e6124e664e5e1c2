//! Quotes names and strings for SQL and for libpq.

/// Quotes the name of a database for libpq's programs, which take a name with a `=` for a
/// connection string.
pub(crate) fn dbname(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Quotes a name for SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string for SQL. The result does not depend on `standard_conforming_strings`.
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
