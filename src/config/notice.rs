//! What loading has to say: notices for the log, problems for the operator. Each names its place and its key.

use std::fmt;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file, counted from 1.
    Line {
        /// The file as it was named to us.
        file: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// A file as a whole: something is missing from it, or it could not be read.
    File(String),
    /// An environment variable (`SERVER_JVMFLAGS`, `JVMFLAGS`).
    Environment(&'static str),
    /// An argument of the command line.
    CommandLine,
    /// Nobody wrote it: a default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(formatter, "{file}:{line}"),
            Self::File(file) => formatter.write_str(file),
            Self::Environment(variable) => write!(formatter, "environment {variable}"),
            Self::CommandLine => formatter.write_str("command line"),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// How loudly a notice is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; nothing differs from what the operator asked for.
    Info,
    /// The server will not do exactly what was written.
    Warn,
}

/// One line for the start-up log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How loudly to say it.
    pub severity: Severity,
    /// Where the setting was written.
    pub place: Place,
    /// The key as it was written.
    pub key: String,
    /// What is done about it, and why.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.place, self.key, self.message)
    }
}

/// One thing that keeps the server from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written, or the file in which it is missing.
    pub place: Place,
    /// The key that it is about.
    pub key: String,
    /// The wrong value; `None` where none was given, or where it must not be shown.
    pub value: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.key)?;
        if let Some(value) = &self.value {
            write!(formatter, "={value}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// Everything that is wrong with a configuration: first what is wrong with single settings, in their order, then what
/// does not fit together. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems; the server starts when all of them are gone.
    pub problems: Vec<Problem>,
    /// What there was to say about the rest of the configuration.
    pub notices: Vec<Notice>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for problem in &self.problems {
            write!(formatter, "{separator}{problem}")?;
            separator = "\n";
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
