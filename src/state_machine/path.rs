//! Which paths there may be. Source: Apache's `PathUtils.validatePath`.

use crate::proto::{ErrorCode, Text};

/// The znodes that are always there and cannot be deleted.
pub(super) const ALWAYS_THERE: [&[u8]; 4] = [b"/", b"/zookeeper", QUOTA_ROOT, CONFIG];
/// Below it, quotas have their limits and stats under the path that they are for.
pub(super) const QUOTA_ROOT: &[u8] = b"/zookeeper/quota";
/// The ensemble's configuration.
pub(super) const CONFIG: &[u8] = b"/zookeeper/config";
/// The same as text.
pub(super) const CONFIG_TEXT: Text = Text::from_static("/zookeeper/config");

/// Whether a znode may have this path: absolute, no empty or relative segment, no `/` at the end, no character that is
/// not meant to be read.
///
/// # Errors
/// `BadArguments`.
pub(super) fn validate(path: &[u8]) -> Result<(), ErrorCode> {
    let is_valid = match path {
        b"/" => true,
        [b'/', names @ ..] => names.split(|byte| *byte == b'/').all(is_name),
        _ => false,
    };
    if is_valid { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

fn is_name(name: &[u8]) -> bool {
    if matches!(name, b"" | b"." | b"..") {
        return false;
    }
    if name.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return true;
    }
    std::str::from_utf8(name).is_ok_and(|name| !name.chars().any(is_forbidden))
}

/// Java looks at UTF-16 units: what is written as two of them falls into the surrogates, D800–DFFF.
fn is_forbidden(character: char) -> bool {
    matches!(u32::from(character), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// The path of the parent, for a path that a client gave and nobody has checked yet. The parent of `/x` is the empty
/// path, which finds the root.
///
/// # Errors
/// `BadArguments` if there is no slash, or a NUL anywhere.
pub(super) fn parent(path: &[u8]) -> Result<&[u8], ErrorCode> {
    let last_slash = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .ok_or(ErrorCode::BadArguments)?;
    if path.contains(&0) {
        return Err(ErrorCode::BadArguments);
    }
    Ok(&path[..last_slash])
}

/// What stands behind the last slash.
pub(super) fn name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(last_slash) => &path[last_slash + 1..],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/b",
            "/a.b",
            "/...",
            "/.a",
            "/a..",
            "/é",
            "/a b",
            "/\u{d7ff}",
            "/\u{f900}",
            "/\u{ffef}",
        ] {
            assert_eq!(validate(path.as_bytes()), Ok(()), "{path}");
        }
    }

    #[test]
    fn others_do_not() {
        for path in [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/..",
            "/\0",
            "/a\u{1}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{1f600}",
        ] {
            assert_eq!(validate(path.as_bytes()), Err(ErrorCode::BadArguments), "{path:?}");
        }
    }

    #[test]
    fn parents_are_what_stands_before_the_last_slash() {
        assert_eq!(parent(b"/a/b"), Ok(&b"/a"[..]));
        assert_eq!(parent(b"/a"), Ok(&b""[..]));
        assert_eq!(parent(b"/a/"), Ok(&b"/a"[..]));
        assert_eq!(parent(b"a"), Err(ErrorCode::BadArguments));
        assert_eq!(parent(b"/a\0"), Err(ErrorCode::BadArguments));
        assert_eq!(name(b"/a/b"), b"b");
    }
}
