//! Time spans, systemd.time(7).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A finite time span, parsed as systemd parses it (`30min`, `2h 30min`, a bare number in seconds)
/// and formatted so that every version of systemd parses it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespan(Duration);

impl Timespan {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span as a [`Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Timespan {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_micros() {
            0 => write!(f, "{}s", self.0.as_secs()),
            micros => write!(f, "{}s {micros}us", self.0.as_secs()),
        }
    }
}

const SECOND: u64 = 1_000_000;

/// systemd's units in microseconds, in the order in which it tries them as prefixes. Libraries
/// differ from systemd, where a year has 365.25 days and `M` is not `m`.
const UNITS: [(&str, u64); 29] = [
    ("seconds", SECOND),
    ("second", SECOND),
    ("sec", SECOND),
    ("s", SECOND),
    ("minutes", 60 * SECOND),
    ("minute", 60 * SECOND),
    ("min", 60 * SECOND),
    ("months", 2_629_800 * SECOND),
    ("month", 2_629_800 * SECOND),
    ("M", 2_629_800 * SECOND),
    ("msec", 1000),
    ("ms", 1000),
    ("m", 60 * SECOND),
    ("hours", 3600 * SECOND),
    ("hour", 3600 * SECOND),
    ("hr", 3600 * SECOND),
    ("h", 3600 * SECOND),
    ("days", 86_400 * SECOND),
    ("day", 86_400 * SECOND),
    ("d", 86_400 * SECOND),
    ("weeks", 604_800 * SECOND),
    ("week", 604_800 * SECOND),
    ("w", 604_800 * SECOND),
    ("years", 31_557_600 * SECOND),
    ("year", 31_557_600 * SECOND),
    ("y", 31_557_600 * SECOND),
    ("usec", 1),
    ("us", 1),
    ("\u{b5}s", 1),
];

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// Splits `text` after its leading digits.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// The unit at the start of `text`, and the text after it.
fn unit(text: &str) -> Option<(u64, &str)> {
    // systemd accepts both the micro sign and the Greek letter mu.
    let mu = text.strip_prefix("\u{3bc}s").map(|rest| (1, rest));
    mu.or_else(|| {
        UNITS.iter().find_map(|(name, micros)| text.strip_prefix(name).map(|rest| (*micros, rest)))
    })
}

impl FromStr for Timespan {
    type Err = anyhow::Error;

    /// Parses `text` like systemd's `parse_sec()`: several parts add up, fractions are allowed, and
    /// a bare number is in seconds. `infinity` is refused, because a [`Timespan`] is finite.
    fn from_str(text: &str) -> Result<Self> {
        ensure!(skip_spaces(text.trim_end()) != "infinity", "'infinity' is not a finite time span");
        let mut rest = skip_spaces(text);
        ensure!(!rest.is_empty(), "there is no time span in it");
        let mut total: u64 = 0;
        // The text from the last unit on. If the rest does not start with a number, the unit may
        // have been a part of a longer, unknown word, which the message quotes.
        let mut word = "";
        while !rest.is_empty() {
            ensure!(!rest.starts_with('-'), "'{text}' is negative");
            let letters = word.find(|c: char| !c.is_alphabetic()).unwrap_or(word.len());
            ensure!(
                word.is_empty() || word.len() - letters >= rest.len(),
                "'{}' is not a unit of time",
                &word[..letters]
            );
            let unsigned = rest
                .strip_prefix('+')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                .unwrap_or(rest);
            let (whole, after) = digits(unsigned);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => digits(after),
                None => ("", after),
            };
            ensure!(
                after.len() < unsigned.len()
                    && !(fraction.is_empty() && unsigned[whole.len()..].starts_with('.')),
                "'{rest}' does not start with a number"
            );
            let spaced = skip_spaces(after);
            let (micros, next) = match unit(spaced) {
                Some(found) => found,
                None if spaced.len() < after.len() || spaced.is_empty() => (SECOND, spaced),
                None => bail!("'{spaced}' is not a unit of time"),
            };
            let part = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
            let part = part.and_then(|part| part.checked_mul(micros));
            let mut place = micros;
            let fraction: u64 = fraction
                .bytes()
                .map(|digit| {
                    place /= 10;
                    u64::from(digit - b'0') * place
                })
                .sum();
            total = part
                .and_then(|part| part.checked_add(fraction))
                .and_then(|part| part.checked_add(total))
                .filter(|total| *total < u64::MAX)
                .with_context(|| format!("'{text}' is longer than systemd can count"))?;
            rest = skip_spaces(next);
            word = spaced;
        }
        Ok(Self(Duration::from_micros(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The time span in microseconds, as systemd parses it.
    fn systemd_parses(text: &str) -> Option<u64> {
        let output = std::process::Command::new("systemd-analyze")
            .env("LC_ALL", "C.UTF-8")
            .args(["timespan", "--", text])
            .output()
            .expect("systemd-analyze must be installed: it is what time spans are compared with");
        let printed = String::from_utf8(output.stdout).unwrap();
        let micros = printed.lines().find_map(|line| {
            line.trim().split_once("s: ").filter(|(unit, _)| unit.chars().count() == 1)
        });
        output
            .status
            .success()
            .then(|| micros.expect("systemd-analyze prints microseconds").1.trim().parse().unwrap())
    }

    /// The time span in microseconds, as [`Timespan`] parses it.
    fn timespan_parses(text: &str) -> Option<u64> {
        text.parse::<Timespan>()
            .ok()
            .map(|span| u64::try_from(span.duration().as_micros()).unwrap())
    }

    #[test]
    fn parses_like_systemd() {
        for text in [
            "30min",
            "5",
            "1.5h",
            "1h 30",
            "1h30min",
            "2m",
            "1M",
            "5\u{b5}s",
            "5\u{3bc}s",
            "5 us",
            "1y",
            "",
            " ",
            "-5",
            "+5",
            "+-5",
            "+.5",
            "1e3",
            "5 s",
            "1.h",
            ".5h",
            "1..h",
            "99999999999999999999",
            "1ns",
            "1.0000001s",
            "1 h 3 m",
            "5S",
            "1hr",
            "2 weeks",
            "1 5",
            "1month",
            "0",
            "1msec",
            "1.5 .5",
            "12.34.56",
            " 5 ",
            "5\ts",
            "1y1M1w1d",
            "soon",
            "5 x",
            "585000y",
            "0.1us",
            "3 months 2 min",
        ] {
            assert_eq!(timespan_parses(text), systemd_parses(text), "{text:?}");
        }
        assert_eq!(
            timespan_parses("1h 30min"),
            Some(5_400_000_000),
            "the comparison compares something"
        );
    }

    #[test]
    fn refuses_infinity() {
        assert!("infinity".parse::<Timespan>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_systemd(text in "([+]?[0-9]{0,4}(\\.[0-9]{0,8})? \
                                        ?(s|sec|min|m|M|month|ms|us|h|hr|hours|d|w|y|x|)? \
                                        ?){1,3}") {
            prop_assert_eq!(timespan_parses(&text), systemd_parses(&text));
        }

        #[test]
        fn round_trips(micros in 0..u64::MAX / 2) {
            let span = Timespan::from(Duration::from_micros(micros));
            prop_assert_eq!(span.to_string().parse::<Timespan>().unwrap(), span);
        }
    }
}
