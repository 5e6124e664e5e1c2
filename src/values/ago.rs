//! How long ago something was, in words.

use jiff::Timestamp;

/// `90 s ago`, `60 min ago`, `7 h ago`, `3 days ago`: beside a date, for whoever would have to
/// reckon.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A date, and beside it how long ago that was.
pub fn dated(time: Timestamp, now: Timestamp) -> String {
    format!("{}, {}", time.strftime("%Y-%m-%d %H:%M:%S UTC"), ago(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_one_in_which_the_number_says_something() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let said = |time: &str| ago(time.parse().unwrap(), now);
        assert_eq!(said("2026-11-29T12:00:00Z"), "0 s ago");
        assert_eq!(said("2026-11-29T11:00:01Z"), "59 min ago");
        assert_eq!(said("2026-11-29T02:00:00Z"), "10 h ago");
        assert_eq!(said("2026-11-20T12:00:00Z"), "9 days ago");
        assert_eq!(said("2026-11-29T12:00:01Z"), "in the future");
    }
}
