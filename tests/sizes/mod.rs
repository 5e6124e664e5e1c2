//! How large the large tests are.

/// `usual`, or `long` with `LONG_TESTS=1`: for tests that a larger size only makes slower.
pub fn size(usual: usize, long: usize) -> usize {
    if std::env::var_os("LONG_TESTS").is_some() { long } else { usual }
}
