//! The one table of all keys: looking them up, and printing it as the reference of settings.

use super::key::{Key, Support};
use super::{absent, auth, cluster, operating, serving, storing, tls};
use std::fmt::Write;

/// All rows, by concern.
fn sections() -> impl Iterator<Item = (&'static str, Vec<&'static Key>)> {
    let tls = tls::KEYS.iter().flat_map(|keys| keys.iter()).collect();
    [
        ("Clients: listeners, sessions, limits", serving::KEYS.iter().collect()),
        ("Storage and the tree", storing::KEYS.iter().collect()),
        ("Authentication", auth::KEYS.iter().collect()),
        ("TLS", tls),
        ("Ensemble", cluster::KEYS.iter().collect::<Vec<_>>()),
        ("Operation", operating::KEYS.iter().collect()),
        ("Accepted for compatibility", absent::KEYS.iter().collect()),
    ]
    .into_iter()
}

/// All rows.
pub(super) fn rows() -> impl Iterator<Item = &'static Key> {
    sections().flat_map(|(_, keys)| keys)
}

/// The row of a key: the one of exactly this name, else the first family that it belongs to.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    rows()
        .find(|key| key.name == name && !key.name.ends_with('*'))
        .or_else(|| rows().find(|key| key.matches(name)))
}

/// The key that was probably meant by a name that is none.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Beyond two letters in ten, a suggestion is a guess.
    const LEAST_SIMILARITY: f64 = 0.8;
    let lower = name.to_lowercase();
    let known = rows().filter(|key| key.support != Support::NoMeaning && !key.name.ends_with('*'));
    let similarity = |key: &Key| strsim::normalized_damerau_levenshtein(&lower, &key.name.to_lowercase());
    let (name, similarity) = known
        .map(|key| (key.name, similarity(key)))
        .max_by(|one, other| one.1.total_cmp(&other.1))?;
    (similarity >= LEAST_SIMILARITY).then_some(name)
}

/// One row of the reference of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingReference {
    /// The heading that it belongs under.
    pub section: &'static str,
    /// The key in zoo.cfg; on the command line `-Dzookeeper.` and this. A `*` at the end stands for any suffix.
    pub key: &'static str,
    /// What values it takes, in words.
    pub form: String,
    /// Its default; empty where it has none.
    pub default: &'static str,
    /// What becomes of it.
    pub support: Support,
    /// One line of help; for keys that are not honoured, the reason.
    pub help: &'static str,
}

/// The reference of settings, from the table that the loader uses.
#[must_use]
pub fn reference() -> Vec<SettingReference> {
    let of_key = |section, key: &Key| SettingReference {
        section,
        key: key.name,
        form: key.setter.form(),
        default: key.default,
        support: key.support,
        help: key.help,
    };
    sections()
        .flat_map(|(section, keys)| keys.into_iter().map(move |key| of_key(section, key)))
        .collect()
}

/// The reference as text for a terminal.
#[must_use]
pub fn render_reference() -> String {
    let mut text =
        "\nWrite key=value into zoo.cfg, or -Dzookeeper.key=value on the command line, which wins.\n".to_owned();
    let mut section = "";
    for setting in reference() {
        if setting.section != section {
            section = setting.section;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{section}\n{}\n", "=".repeat(section.len()));
        }
        let _ = match setting.support {
            Support::Honoured if setting.default.is_empty() => writeln!(text, "{}", setting.key),
            Support::Honoured => writeln!(text, "{} (default {})", setting.key, setting.default),
            Support::NotYet => writeln!(text, "{} (not available yet)", setting.key),
            Support::NoMeaning => writeln!(text, "{} (no meaning here)", setting.key),
        };
        let _ = writeln!(text, "    {}", setting.help);
        if setting.support == Support::Honoured {
            // What is not honoured takes what ZooKeeper takes; its form would only be noise here.
            let _ = writeln!(text, "    takes {}", setting.form);
        }
    }
    text.trim_start().to_owned()
}
