//! zoo.cfg as ZooKeeper rewrites it once the membership has a file of its own.
//!
//! ZooKeeper writes the file anew in the order of a hash table and drops all comments. Here, only the lines that have to go
//! go, and one takes their place; everything else stays as it was written, to the byte.

use super::properties::{self, Property, SyntaxError};
use std::fmt::Write as _;

/// The key of the line that names the file of the membership.
pub const DYNAMIC_CONFIG_FILE: &str = "dynamicConfigFile";

/// The text of a zoo.cfg without what stands in the file of the membership: `server.N`, groups, weights and `peerType`;
/// and, if `erase_client_address`, without `clientPort` and `clientPortAddress`, because this server's line has them. In
/// their place, or in that of an older one, stands `dynamicConfigFile` with the path `dynamic_file`.
///
/// # Errors
/// As [`properties::parse`].
pub fn point_to_dynamic_file(
    text: &str,
    dynamic_file: &str,
    erase_client_address: bool,
) -> Result<String, Vec<SyntaxError>> {
    let entries = properties::parse(text)?;
    let going: Vec<&Property> = entries
        .iter()
        .filter(|entry| goes(&entry.key, erase_client_address))
        .collect();
    let place = going.iter().find(|entry| entry.key == DYNAMIC_CONFIG_FILE);
    let place = place.or_else(|| going.iter().find(|entry| entry.key.starts_with("server.")));
    let place = place.map(|entry| entry.line);
    let pointer = format!("{DYNAMIC_CONFIG_FILE}={}", escaped(dynamic_file));
    let line_end = properties::natural_lines_and_ends(text).find_map(|(_, end)| (!end.is_empty()).then_some(end));
    let line_end = line_end.unwrap_or("\n");

    let mut rewritten = String::with_capacity(text.len() + pointer.len() + 2);
    for (index, (line, end)) in properties::natural_lines_and_ends(text).enumerate() {
        let number = index + 1;
        if place == Some(number) {
            rewritten.push_str(&pointer);
            rewritten.push_str(line_end);
        }
        if !going
            .iter()
            .any(|entry| (entry.line..=entry.last_line).contains(&number))
        {
            rewritten.push_str(line);
            rewritten.push_str(end);
        }
    }
    if place.is_none() {
        if !rewritten.is_empty() && !rewritten.ends_with(['\n', '\r']) {
            rewritten.push_str(line_end);
        }
        if rewritten.trim_end_matches(['\n', '\r']).ends_with('\\') {
            // The last line would go on in ours. An empty one may stand behind it.
            rewritten.push_str(line_end);
        }
        rewritten.push_str(&pointer);
        rewritten.push_str(line_end);
    }
    Ok(rewritten)
}

fn goes(key: &str, erase_client_address: bool) -> bool {
    match key {
        DYNAMIC_CONFIG_FILE | "peerType" => true,
        "clientPort" | "clientPortAddress" => erase_client_address,
        _ => ["server.", "group", "weight"]
            .iter()
            .any(|prefix| key.starts_with(prefix)),
    }
}

/// A path as a value: readable by Java, which takes the file for Latin-1, and by ourselves, who take it for UTF-8.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            ' '..='~' => text.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(text: &str, erase_client_address: bool) -> String {
        point_to_dynamic_file(text, "/conf/zoo.cfg.dynamic.a0", erase_client_address).unwrap()
    }

    #[test]
    fn the_servers_go_and_everything_else_stays_as_it_was() {
        let text = "# ours\ntickTime = 2000\nclientPort=2181\npeerType=observer\n\n# the ensemble\nserver.1=a:1:2\n\
                    server.2=b:1:\\\n   2\n# weights\ngroup.1=1:2\nweight.1=1\n! the end\nclientPortAddress=x";
        assert_eq!(
            rewritten(text, false),
            "# ours\ntickTime = 2000\nclientPort=2181\n\n# the ensemble\ndynamicConfigFile=/conf/zoo.cfg.dynamic.a0\n\
             # weights\n! the end\nclientPortAddress=x"
        );
        assert_eq!(
            rewritten(text, true),
            "# ours\ntickTime = 2000\n\n# the ensemble\ndynamicConfigFile=/conf/zoo.cfg.dynamic.a0\n# weights\n! the end\n"
        );
    }

    #[test]
    fn an_older_file_is_replaced_where_it_stands() {
        assert_eq!(
            rewritten("a=1\ndynamicConfigFile=/old.1\nb=2\n", true),
            "a=1\ndynamicConfigFile=/conf/zoo.cfg.dynamic.a0\nb=2\n"
        );
        let now = "a=1\ndynamicConfigFile=/conf/zoo.cfg.dynamic.a0\nb=2\n";
        assert_eq!(rewritten(now, false), now);
    }

    #[test]
    fn a_file_without_either_gets_the_line_at_its_end() {
        let pointer = "dynamicConfigFile=/conf/zoo.cfg.dynamic.a0";
        assert_eq!(rewritten("", false), format!("{pointer}\n"));
        assert_eq!(rewritten("a=1", false), format!("a=1\n{pointer}\n"));
        assert_eq!(rewritten("a=1\r\n", false), format!("a=1\r\n{pointer}\r\n"));
        assert_eq!(
            rewritten("# a\r\nserver.1=x\r\n", false),
            format!("# a\r\n{pointer}\r\n")
        );
    }

    #[test]
    fn a_path_is_read_back_as_it_was() {
        for path in [
            "/conf/zoo.cfg.dynamic.1",
            "/with space/\u{e4}\u{1f600}",
            "C:\\conf\\zoo.cfg",
        ] {
            let text = point_to_dynamic_file("a=1", path, false).unwrap();
            assert_eq!(properties::parse(&text).unwrap()[1].value, path);
        }
    }

    #[test]
    fn a_file_that_java_would_refuse_is_left_alone() {
        assert!(point_to_dynamic_file("a=\\u12", "/x", false).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_file_says_the_other_settings_and_comments_stay(
            lines in prop::collection::vec(
                prop::sample::select(&["a=1", "# c", "!d", "", "\\", "server.1=x", "server.2=y\\", "  z", "clientPort=2",
                    "dynamicConfigFile=/o", "b=2\\", "weight.1=3"][..]), 0..12),
            end in prop::sample::select(&["\n", "\r\n", "\r"][..]),
            erase in any::<bool>(),
        ) {
            let text = lines.join(end);
            let new = rewritten(&text, erase);
            let pairs = |text: &str| -> Vec<(String, String)> {
                let entries = properties::parse(text).unwrap();
                entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
            };
            let staying: Vec<_> = pairs(&text).into_iter().filter(|(key, _)| !goes(key, erase)).collect();
            let mut now = pairs(&new);
            let pointers = now.iter().filter(|(key, _)| key == DYNAMIC_CONFIG_FILE).count();
            now.retain(|(key, _)| key != DYNAMIC_CONFIG_FILE);
            prop_assert_eq!(pointers, 1, "{:?} {:?}", text, new);
            prop_assert_eq!(now, staying, "{:?} {:?}", text, new);
            let again = rewritten(&new, erase);
            prop_assert_eq!(again, new);
        }
    }
}
