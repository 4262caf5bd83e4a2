//! Small files of text whose last line is a checksum: who the data belongs to, which tree is in use, how often the server
//! was started.

use std::io;
use std::path::Path;

use super::file::{FileSystem, read_up_to};

/// Bytes that are looked at; the real ones have less than 300.
const MAX_BYTES: usize = 4096;

/// What such a file holds: `body`, which ends with a line feed, and its checksum.
pub(super) fn seal(body: &str) -> String {
    format!("{body}checksum={:08x}\n", crc32c::crc32c(body.as_bytes()))
}

/// The body of such a file; `None` when it is damaged.
pub(super) fn unseal(text: &str) -> Option<&str> {
    let end = text.rfind("checksum=")?;
    let body = &text[..end];
    (seal(body) == text).then_some(body)
}

/// The text of a small file; `None` when there is no such file. What is not UTF-8 is replaced, and so found damaged.
pub(super) fn read_small(files: &dyn FileSystem, path: &Path) -> io::Result<Option<String>> {
    let file = match files.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; MAX_BYTES];
    let filled = read_up_to(file.as_ref(), 0, &mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..filled]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_breaks_the_seal() {
        let text = seal("one=1\ntwo=2\n");
        assert_eq!(unseal(&text), Some("one=1\ntwo=2\n"));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(unseal(&String::from_utf8(bytes).expect("ASCII")), None, "byte {at}");
        }
        assert_eq!(unseal(&text[..text.len() - 1]), None);
        assert_eq!(unseal(""), None);
    }
}
