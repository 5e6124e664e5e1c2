//! The head of an RDB file: just enough to tell when its server forked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: &[u8] = b"REDIS";
/// An auxiliary field: two strings, key and value.
const AUX: u8 = 0xfa;

/// When the server forked for this file, seconds since the epoch: the AUX field `ctime`.
pub(super) fn created(path: &Path) -> Result<i64> {
    let mut head = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(4096).read_to_end(&mut head).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&head).with_context(|| format!("{} is not a Redis snapshot", path.display()))
}

fn parse(head: &[u8]) -> Result<i64> {
    ensure!(head.starts_with(MAGIC) && head.len() > 9, "it does not begin with REDIS");
    let mut rest = &head[9..];
    while let Some((&AUX, after)) = rest.split_first() {
        let (key, after) = string(after)?;
        let (value, after) = string(after)?;
        if key == b"ctime" {
            return std::str::from_utf8(&value)?.parse().context("its ctime is not a number");
        }
        rest = after;
    }
    bail!("it has no ctime")
}

/// A length-encoded string: 6 or 14 bits of length, or an integer in 8, 16 or 32 bits.
fn string(bytes: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let take = |bytes: &[u8], from: usize, count: usize| bytes.get(from..from + count).map(<[u8]>::to_vec).context("it ends too early");
    let first = *bytes.first().context("it ends too early")?;
    let integer = |count: usize| -> Result<(Vec<u8>, &[u8])> {
        let mut number = [0; 8];
        number[..count].copy_from_slice(&take(bytes, 1, count)?);
        Ok((i64::from_le_bytes(number).to_string().into_bytes(), &bytes[1 + count..]))
    };
    match first >> 6 {
        0 => Ok((take(bytes, 1, usize::from(first))?, &bytes[1 + usize::from(first)..])),
        1 => {
            let length = usize::from(first & 0x3f) << 8 | usize::from(*bytes.get(1).context("it ends too early")?);
            Ok((take(bytes, 2, length)?, &bytes[2 + length..]))
        }
        3 if first == 0xc0 => integer(1),
        3 if first == 0xc1 => integer(2),
        3 if first == 0xc2 => integer(4),
        _ => bail!("a string in its head is encoded in an unknown way"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    #[test]
    fn finds_the_time_of_the_fork() {
        let mut head = b"REDIS0010\xfa\x09redis-ver\x057.0.1\xfa\x0aredis-bits\xc0\x40\xfa\x05ctime\xc2".to_vec();
        head.extend(1_790_000_000_u32.to_le_bytes());
        assert_eq!(parse(&head).unwrap(), 1_790_000_000);
        assert!(parse(b"REDIS0010\xfe\x00").is_err());
        assert!(parse(b"nothing of the kind").is_err());
        assert!(parse(&head[..head.len() - 2]).is_err());
    }
}
