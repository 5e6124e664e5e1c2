//! Paths from untrusted sources in JSON: a string if the path is UTF-8, else an array of its bytes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Such a path as an element of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawPath(#[serde(with = "crate::values::raw_path")] pub PathBuf);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(PathBuf),
    Bytes(Vec<u8>),
}

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_seq(path.as_os_str().as_bytes()),
    }
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match Written::deserialize(deserializer)? {
        Written::Text(path) => path,
        Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_round_trips() {
        for bytes in [&b"/plain"[..], b"/a\xffb\n", b"", b"[1]"] {
            let path = RawPath(OsString::from_vec(bytes.to_vec()).into());
            assert_eq!(
                serde_json::from_str::<RawPath>(&serde_json::to_string(&path).unwrap()).unwrap(),
                path
            );
        }
        assert_eq!(serde_json::to_string(&RawPath("/a".into())).unwrap(), "\"/a\"");
    }
}
