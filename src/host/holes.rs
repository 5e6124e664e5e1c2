//! Copies sparse files, lseek(2): a copy takes as much space as the file.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Copies `size` bytes of a file to an empty file, and keeps the holes. Returns the number of bytes
/// that were copied.
///
/// # Errors
/// If the file ends before that, or cannot be read or written.
pub fn copy(mut source: &File, mut target: &File, size: u64) -> io::Result<u64> {
    let (mut copied, mut at) = (0, 0);
    while at < size {
        let data = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            // The rest of the file is a hole.
            Err(Errno::NXIO) => break,
            data => data?,
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(data))?.min(size);
        if data >= end {
            break;
        }
        for mut file in [source, target] {
            io::Seek::seek(&mut file, io::SeekFrom::Start(data))?;
        }
        let length = end - data;
        if io::copy(&mut source.by_ref().take(length), &mut target)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (copied, at) = (copied + length, end);
    }
    target.set_len(size)?;
    Ok(copied)
}
