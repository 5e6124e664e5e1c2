//! Value types. Each can only be constructed from a valid value, so that later stages need no
//! checks.

mod ago;
mod calendar;
pub mod raw_path;
mod run_id;
mod secret;
mod timespan;
mod unit_name;

pub use ago::{ago, dated};
pub use calendar::Calendar;
pub use raw_path::RawPath;
pub use run_id::RunId;
pub use secret::SecretSource;
pub use timespan::Timespan;
pub use unit_name::UnitName;

/// Whether `c` is a Unicode noncharacter. systemd rejects text that contains one as invalid UTF-8.
pub fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}
