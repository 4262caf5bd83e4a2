//! The four-letter words: which bytes are one, which may be answered, and with what.
//!
//! A word is the first four bytes of a connection; `stmk` takes eight more. What follows (a newline, mostly) is ignored.
//! Words that stand in `4lw.commands.whitelist` are answered, others are told so; either way the connection is closed.

use super::listing::{Dump, WatchListing};
use super::process::{self, Process};
use super::status::{Status, version};
use super::text::{self, Data};
use crate::config::FOUR_LETTER_WORDS;
use crate::server::{Connection, Service, Shared, Word, Words};
use std::fmt::Write as _;
use std::sync::Arc;

/// Bytes of a word.
const WORD_BYTES: usize = 4;
/// Bytes of the mask that follows `stmk`.
const MASK_BYTES: usize = 8;
/// What telnet sends when its user closes it: read as a length it would be a negative one.
const TELNET_CLOSE: [u8; WORD_BYTES] = [0xff, 0xf4, 0xff, 0xfd];
/// The answer to most words while the server does not serve; Solr and Datadog look for it.
pub(super) const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// Answers four-letter words.
pub struct FourLetterAnswers(Arc<Status>);

impl FourLetterAnswers {
    /// Answers from `status`.
    pub fn new(status: Arc<Status>) -> FourLetterAnswers {
        FourLetterAnswers(status)
    }
}

impl Words for FourLetterAnswers {
    fn answer(&self, first_bytes: &[u8]) -> Word {
        let Some((first, rest)) = first_bytes.split_first_chunk::<WORD_BYTES>() else {
            return if may_become_word(first_bytes) {
                Word::Incomplete
            } else {
                Word::Unknown
            };
        };
        if *first == TELNET_CLOSE {
            return Word::Answer(String::new());
        }
        let Some(word) = FOUR_LETTER_WORDS.into_iter().find(|word| word.as_bytes() == first) else {
            return Word::Unknown;
        };
        if !self.0.config.four_letter_words.allows(word) {
            return Word::Answer(format!("{word} is not executed because it is not in the whitelist.\n"));
        }
        if word != "stmk" {
            return Word::Answer(answer(&self.0, word));
        }
        match rest.first_chunk::<MASK_BYTES>() {
            None => Word::Incomplete,
            Some(mask) => {
                let mask = i64::from_be_bytes(*mask);
                self.0.set_trace_mask(mask);
                Word::Answer(mask.to_string())
            }
        }
    }
}

fn may_become_word(bytes: &[u8]) -> bool {
    TELNET_CLOSE.starts_with(bytes) || FOUR_LETTER_WORDS.iter().any(|word| word.as_bytes().starts_with(bytes))
}

/// The answer to a word that may be answered.
fn answer(status: &Status, word: &str) -> String {
    match word {
        "ruok" => return "imok".to_owned(),
        "envi" => return text::environment(&process::environment(&version())),
        "gtmk" => return status.trace_mask().to_string(),
        _ => {}
    }
    match (status.serving(), word) {
        (None, "isro") => "null".to_owned(),
        (None, "hash") => NOT_SERVING.to_owned(),
        (None, _) => format!("{NOT_SERVING}\n"),
        (Some(shared), _) => answer_of_server(status, &shared, word),
    }
}

fn answer_of_server(status: &Status, shared: &Shared, word: &str) -> String {
    match word {
        "srvr" => text::server(&version(), &status.numbers(shared), None),
        "stat" => text::server(&version(), &status.numbers(shared), Some(&status.connections(shared))),
        "cons" => text::connections(&status.connections(shared)),
        "crst" => {
            shared.for_each_connection(Connection::reset_numbers);
            "Connection stats reset.\n".to_owned()
        }
        "srst" => {
            status.reset(shared);
            "Server stats reset.\n".to_owned()
        }
        "conf" => configuration(status, shared),
        "dirs" => {
            let (tree, log) = status.directory_sizes();
            format!("datadir_size: {tree}\nlogdir_size: {log}\n")
        }
        "dump" => Dump::gather(shared, status.config.sessions.tick_ms).to_text(),
        "wchs" => {
            let counts = shared.watches.counts();
            format!(
                "{} connections watching {} paths\nTotal watches:{}\n",
                counts.connections, counts.paths, counts.watches
            )
        }
        "wchc" => WatchListing::gather(shared).into_text_by_session(),
        "wchp" => WatchListing::gather(shared).into_text_by_path(),
        "mntr" => monitor(status, shared),
        "isro" if shared.service() == Service::ReadOnly => "ro".to_owned(),
        "isro" => "rw".to_owned(),
        "hash" => digests(shared),
        // The caller has found the word in the list of all words.
        _ => String::new(),
    }
}

fn configuration(status: &Status, shared: &Shared) -> String {
    let (tree_bytes, log_bytes) = status.directory_sizes();
    let data = Data {
        tree: &status.directories.tree,
        tree_bytes,
        log: &status.directories.log,
        log_bytes,
    };
    let ensemble = status.ensemble(shared);
    text::configuration(&status.config, ensemble.as_ref(), status.server_id(), &data)
}

/// `mntr`. Every line must look like `zk_name<TAB>value`: Telegraf gives up a whole answer for one that does not.
fn monitor(status: &Status, shared: &Shared) -> String {
    let ensemble = status.ensemble(shared);
    // Writing to a string cannot fail.
    let mut text = format!(
        "zk_version\t{}\nzk_server_state\t{}\n",
        version(),
        shared.ensemble().role
    );
    if let Some(ensemble) = &ensemble {
        let _ = writeln!(text, "zk_peer_state\t{}", ensemble.peer_state());
    }
    if let Some(master) = ensemble.and_then(|ensemble| ensemble.observer_master()) {
        let _ = writeln!(text, "zk_observer_master_id\t{master}");
    }
    if status.has_metrics() {
        let computed = status.computed(shared, &Process::look());
        status.registry.dump(&computed, |key, number| {
            let _ = writeln!(text, "zk_{key}\t{number}");
        });
    }
    text
}

fn digests(shared: &Shared) -> String {
    let mut text = String::new();
    for (zxid, digest) in shared.state.read().recorded_digests() {
        // A Java long: shown with its sign.
        let _ = writeln!(text, "{:x}: {}", zxid.0, digest.cast_signed());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::Registry;
    use crate::admin::status::Directories;
    use crate::config::{Base, Sources};
    use std::path::Path;

    /// Words of a server that was never started.
    fn words(allowed: &str) -> FourLetterAnswers {
        let text = format!("dataDir=/d\nclientPort=2181\n4lw.commands.whitelist={allowed}\n");
        let sources = Sources {
            base: Base::File {
                path: Path::new("zoo.cfg"),
                text: &text,
            },
            environment: &|_| None,
            overrides: &[],
            read: &|_| Ok(None),
        };
        let config = crate::config::load(&sources).unwrap().config;
        FourLetterAnswers::new(Arc::new(Status::new(
            config,
            Directories::default(),
            Arc::new(Registry::default()),
        )))
    }

    fn text_of(words: &FourLetterAnswers, bytes: &[u8]) -> String {
        match words.answer(bytes) {
            Word::Answer(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn handshakes_are_no_words() {
        let words = words("*");
        assert_eq!(words.answer(&[0, 0, 0, 45]), Word::Unknown);
        assert_eq!(words.answer(&[0]), Word::Unknown);
        assert_eq!(words.answer(b"ruox"), Word::Unknown);
        assert_eq!(words.answer(b"RUOK"), Word::Unknown);
    }

    #[test]
    fn a_word_may_come_in_pieces_and_with_more_behind_it() {
        let words = words("*");
        for piece in [&b""[..], b"r", b"ru", b"ruo"] {
            assert_eq!(words.answer(piece), Word::Incomplete);
        }
        assert_eq!(text_of(&words, b"ruok\r\n"), "imok");
    }

    #[test]
    fn a_word_outside_the_white_list_is_told_so() {
        let words = words("ruok, mntr");
        assert_eq!(
            text_of(&words, b"stat"),
            "stat is not executed because it is not in the whitelist.\n"
        );
        assert_eq!(text_of(&words, b"ruok"), "imok");
        // srvr is always on the list.
        assert_eq!(text_of(&words, b"srvr"), format!("{NOT_SERVING}\n"));
    }

    #[test]
    fn a_server_that_does_not_serve_says_so_but_to_those_that_need_no_server() {
        let words = words("*");
        for word in FOUR_LETTER_WORDS {
            let expected = match word {
                "ruok" => "imok".to_owned(),
                "gtmk" => "306".to_owned(),
                "isro" => "null".to_owned(),
                "hash" => NOT_SERVING.to_owned(),
                "envi" | "stmk" => continue,
                _ => format!("{NOT_SERVING}\n"),
            };
            assert_eq!(text_of(&words, word.as_bytes()), expected, "{word}");
        }
        let environment = text_of(&words, b"envi");
        assert!(environment.starts_with("Environment:\nzookeeper.version=3.9.5-menagerie-"));
        assert!(environment.contains("\njava.version="));
    }

    #[test]
    fn the_trace_mask_is_read_whole_and_shown_again() {
        let words = words("*");
        assert_eq!(words.answer(b"stmk\0\0\0\0\0\0\0"), Word::Incomplete);
        assert_eq!(text_of(&words, b"stmk\0\0\0\0\0\0\x02\x00"), "512");
        assert_eq!(text_of(&words, b"gtmk"), "512");
    }

    #[test]
    fn telnets_farewell_closes_without_a_word() {
        assert_eq!(text_of(&words("ruok"), &TELNET_CLOSE), "");
    }
}
