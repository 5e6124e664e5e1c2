//! Relative times.

use jiff::Timestamp;

/// The time from `time` to `now` as `90 s ago`, `60 min ago`, `7 h ago` or `3 days ago`.
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

/// The date of `time`, and how long ago it was.
pub fn dated(time: Timestamp, now: Timestamp) -> String {
    format!("{}, {}", time.strftime("%Y-%m-%d %H:%M:%S UTC"), ago(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_fits_the_length_of_time() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let text = |time: &str| ago(time.parse().unwrap(), now);
        assert_eq!(text("2026-11-29T12:00:00Z"), "0 s ago");
        assert_eq!(text("2026-11-29T11:00:01Z"), "59 min ago");
        assert_eq!(text("2026-11-29T02:00:00Z"), "10 h ago");
        assert_eq!(text("2026-11-20T12:00:00Z"), "9 days ago");
        assert_eq!(text("2026-11-29T12:00:01Z"), "in the future");
    }
}
