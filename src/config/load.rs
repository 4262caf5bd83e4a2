//! From sources to a configuration: who wins over whom, what is said about it, and the order of the steps.
//!
//! A key may be given in three places. The command line wins over the environment (`SERVER_JVMFLAGS`, then `JVMFLAGS`,
//! of which only `-D` options are read), and the environment over the file; whoever loses is named in a notice.
//! ZooKeeper differs: there the keys that its main class knows come from the file alone, and for all others the file
//! overwrites `-D`. One rule for all keys is easier to keep in mind, and what was typed last, by hand, is what was meant.

use super::check::check;
use super::draft::{Draft, Given};
use super::key::{Key, Support};
use super::notice::{ConfigError, Notice, Place, Problem};
use super::{Config, Origin, properties, table};
use std::path::{Path, PathBuf};

/// Reads a small text file that a key refers to. `Ok(None)`: there is no such file. The error says why it cannot be
/// read, in words for the operator.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<Option<String>, String>;

/// What a configuration begins with.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// Nothing was given: [`Config::embedded_default`].
    Embedded,
    /// A zoo.cfg.
    File {
        /// Its path, as it was named to us.
        path: &'a Path,
        /// Its content.
        text: &'a str,
    },
    /// `port dataDir [tickTime] [maxClientCnxns]`, the other form of ZooKeeper's arguments.
    PortAndDirectory(&'a [String]),
}

/// Where settings come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// What it begins with.
    pub base: Base<'a>,
    /// The value of an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Overrides of the command line in order, each `-Dzookeeper.key=value`, `-Dkey=value`, or either without `-D`.
    pub overrides: &'a [String],
    /// Reads `myid`, `dynamicConfigFile` and password files.
    pub read: ReadFile<'a>,
}

/// A configuration, and what the log should say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Notices, in the order of the settings.
    pub notices: Vec<Notice>,
}

/// Loads a configuration.
///
/// # Errors
/// Everything that is wrong with it, at once. A file that is no properties file is the only thing that hides the rest.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
    let (mut draft, written) = begin(sources)?;
    let settings = merge(&mut draft, written);
    draft.given = settings
        .iter()
        .map(|given| (given.key.clone(), given.clone()))
        .collect();
    for given in &settings {
        apply(&mut draft, given);
    }
    check(&mut draft, sources.read);
    let Draft {
        config,
        notices,
        problems,
        ..
    } = draft;
    if problems.is_empty() {
        Ok(Loaded { config, notices })
    } else {
        Err(ConfigError { problems, notices })
    }
}

/// Collects all settings, the weakest source first.
fn begin(sources: &Sources<'_>) -> Result<(Draft, Vec<Given>), ConfigError> {
    let (origin, whole, mut written) = match sources.base {
        Base::Embedded => (Origin::default(), Place::Default, embedded()),
        Base::File { path, text } => {
            let origin = Origin {
                file: Some(path.to_owned()),
                text: text.to_owned(),
            };
            (origin, Place::File(path.display().to_string()), from_file(path, text)?)
        }
        Base::PortAndDirectory(arguments) => (
            Origin::default(),
            Place::CommandLine,
            from_port_and_directory(arguments)?,
        ),
    };
    let config = Config {
        origin,
        ..Config::default()
    };
    let mut draft = Draft::new(config, whole);
    draft.pending.built_in = matches!(sources.base, Base::Embedded);
    if let Base::File { path, .. } = sources.base {
        drop_prefixed_keys(&mut draft, path, &mut written);
    }
    for variable in ["SERVER_JVMFLAGS", "JVMFLAGS"] {
        if let Some(flags) = (sources.environment)(variable) {
            from_environment(&mut draft, variable, &flags, &mut written);
        }
    }
    for argument in sources.overrides {
        match definition(argument) {
            Some((key, value)) => {
                written.push(Given {
                    key: key.to_owned(),
                    text: value.trim().to_owned(),
                    place: Place::CommandLine,
                });
            }
            None => draft.problems.push(Problem {
                place: Place::CommandLine,
                key: argument.clone(),
                value: None,
                message: "is no setting; expected -Dkey=value".to_owned(),
            }),
        }
    }
    Ok((draft, written))
}

fn embedded() -> Vec<Given> {
    let settings = [
        ("dataDir", "menagerie-data"),
        ("clientPort", "2181"),
        ("tickTime", "2000"),
    ];
    let given = |(key, text): (&str, &str)| Given {
        key: key.into(),
        text: text.into(),
        place: Place::Default,
    };
    settings.into_iter().map(given).collect()
}

fn from_file(path: &Path, text: &str) -> Result<Vec<Given>, ConfigError> {
    let file = path.display().to_string();
    let place = |line| Place::Line {
        file: file.clone(),
        line,
    };
    let entries = properties::parse(text).map_err(|errors| {
        let problem = |error: properties::SyntaxError| Problem {
            place: place(error.line),
            key: "syntax".to_owned(),
            value: None,
            message: error.what,
        };
        ConfigError {
            problems: errors.into_iter().map(problem).collect(),
            notices: Vec::new(),
        }
    })?;
    let given = |entry: properties::Property| Given {
        place: place(entry.line),
        key: entry.key,
        text: entry.value,
    };
    Ok(entries.into_iter().map(given).collect())
}

/// `zookeeper.x` in a file would become the property `zookeeper.zookeeper.x`, which nobody reads. To honour it now
/// could switch on what has been dead for years (`zookeeper.skipACL=yes`), so it stays dead, with a word.
fn drop_prefixed_keys(draft: &mut Draft, path: &Path, written: &mut Vec<Given>) {
    written.retain(|given| {
        let Some(key) = given.key.strip_prefix("zookeeper.") else {
            return true;
        };
        let file = path.display();
        draft.warn(
            given,
            format!("ignored, as in ZooKeeper: {file} takes the key without its prefix, {key}"),
        );
        false
    });
}

const ARGUMENTS: &str = "expected port dataDir [tickTime] [maxClientCnxns]";

fn from_port_and_directory(arguments: &[String]) -> Result<Vec<Given>, ConfigError> {
    let keys = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
    if !(2..=keys.len()).contains(&arguments.len()) {
        let problem = Problem {
            place: Place::CommandLine,
            key: "arguments".to_owned(),
            value: Some(arguments.join(" ")),
            message: format!("{} of them; {ARGUMENTS}", arguments.len()),
        };
        return Err(ConfigError {
            problems: vec![problem],
            notices: Vec::new(),
        });
    }
    let given = |(key, text): (&str, &String)| Given {
        key: key.to_owned(),
        text: text.trim().to_owned(),
        place: Place::CommandLine,
    };
    Ok(keys.into_iter().zip(arguments).map(given).collect())
}

/// The flags of a JVM: split at blanks, as the shell splits them in `zkServer.sh`.
fn from_environment(draft: &mut Draft, variable: &'static str, flags: &str, written: &mut Vec<Given>) {
    let place = Place::Environment(variable);
    let mut ignored = Vec::new();
    for flag in flags.split_whitespace() {
        match flag.strip_prefix("-D").and_then(|_| definition(flag)) {
            Some((key, value)) => {
                written.push(Given {
                    key: key.to_owned(),
                    text: value.to_owned(),
                    place: place.clone(),
                });
            }
            None => ignored.push(flag),
        }
    }
    if !ignored.is_empty() {
        let given = Given {
            key: ignored.join(" "),
            text: String::new(),
            place,
        };
        draft.info(&given, "accepted, has no meaning here: it is for a JVM");
    }
}

/// Cuts `-Dzookeeper.key=value`, with or without `-D` and `zookeeper.`. As in Java, `-Dkey` alone is an empty value;
/// without `-D` it is no setting.
fn definition(argument: &str) -> Option<(&str, &str)> {
    let bare = argument.strip_prefix("-D");
    let (key, value) = match (bare.unwrap_or(argument).split_once('='), bare) {
        (Some(pair), _) => pair,
        (None, Some(key)) => (key, ""),
        (None, None) => return None,
    };
    let key = key.trim();
    let key = key.strip_prefix("zookeeper.").unwrap_or(key);
    if key.is_empty() || key.starts_with('-') {
        None
    } else {
        Some((key, value))
    }
}

/// Leaves one setting per key: the last one, in the place of the first.
fn merge(draft: &mut Draft, written: Vec<Given>) -> Vec<Given> {
    let mut settings: Vec<Given> = Vec::with_capacity(written.len());
    for given in written {
        let Some(earlier) = settings.iter_mut().find(|earlier| earlier.key == given.key) else {
            settings.push(given);
            continue;
        };
        let secret = table::find(&given.key).is_some_and(Key::is_secret);
        let (old, new) = match secret {
            true => ("a value".to_owned(), "another".to_owned()),
            false => (format!("{:?}", earlier.text), format!("{:?}", given.text)),
        };
        match (&earlier.place, &given.place) {
            (Place::Default, _) => {}
            (Place::Line { line, .. }, Place::Line { .. }) => {
                draft.warn(
                    &given,
                    format!("given again: {new} counts, {old} of line {line} does not"),
                );
            }
            (place, _) if earlier.text == given.text => {
                let message = format!("given here and in {place}, with the same value");
                draft.info(&given, message);
            }
            (place, _) => {
                let message = format!("{new} of the {} counts, {old} of {place} does not", given.place);
                draft.warn(&given, message);
            }
        }
        *earlier = given;
    }
    settings
}

fn apply(draft: &mut Draft, given: &Given) {
    let Some(key) = table::find(&given.key) else {
        let message = match table::nearest(&given.key) {
            Some(near) => format!("unknown key, ignored; did you mean {near}?"),
            None => "unknown key, ignored".to_owned(),
        };
        return draft.warn(given, message);
    };
    if let Err(message) = key.setter.apply(draft, given) {
        let value = if key.is_secret() {
            None
        } else {
            Some(given.text.clone())
        };
        draft.problems.push(Problem {
            place: given.place.clone(),
            key: given.key.clone(),
            value,
            message,
        });
    }
    match key.support {
        Support::Honoured => {}
        // Whoever writes the default down gets what it says.
        Support::NotYet if !key.default.is_empty() && key.default.eq_ignore_ascii_case(&given.text) => {}
        Support::NotYet => draft.warn(given, format!("not available yet, ignored: {}", key.help)),
        Support::NoMeaning => draft.info(given, format!("accepted, has no meaning here: {}", key.help)),
    }
}

impl Config {
    /// What `menagerie serve` runs with where nothing is configured: client port 2181 on all addresses, ticks of 2 s, and
    /// `menagerie-data` below the working directory. The admin server listens on ZooKeeper's 8080, where monitoring
    /// looks for it; if that port is taken, the server starts without it (see [`super::Admin::required`]).
    #[must_use]
    pub fn embedded_default() -> Self {
        let data_dir = PathBuf::from("menagerie-data");
        let mut config = Self::default();
        config.listeners.client = Some(super::Address::any(2181));
        config.sessions.tick_ms = 2000;
        config.sessions.min_timeout_ms = 4000;
        config.sessions.max_timeout_ms = 40_000;
        config.storage.data_log_dir.clone_from(&data_dir);
        config.storage.data_dir = data_dir;
        config
    }

    /// The form `port dataDir [tickTime] [maxClientCnxns]` of ZooKeeper's `ZooKeeperServerMain`, without environment,
    /// overrides or files.
    ///
    /// # Errors
    /// As [`load`].
    pub fn from_port_and_dir(arguments: &[String]) -> Result<Loaded, ConfigError> {
        load(&Sources {
            base: Base::PortAndDirectory(arguments),
            environment: &|_| None,
            overrides: &[],
            read: &|_| Ok(None),
        })
    }
}
