//! The program: one file per subcommand.

mod doors;
mod dynamic_file;
mod machine;
mod peers;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A ZooKeeper-compatible coordination server.
#[derive(Parser)]
#[command(
    name = "menagerie",
    version,
    about = "A coordination server that speaks Apache ZooKeeper's protocol.",
    long_about = "A coordination server that speaks Apache ZooKeeper's protocol: existing clients connect to it unmodified.\n\n\
                  `menagerie serve` starts one with sensible defaults: port 2181, data in ./menagerie-data.\n\
                  `menagerie serve zoo.cfg` starts one from an ordinary ZooKeeper configuration.",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::ServeArguments),
    /// Print all settings with their defaults, and what becomes of them here.
    Settings,
}

/// Runs the program with the process's arguments and returns its exit code: 0 for success, 1 for an unexpected end, 2 for
/// a wrong command line or configuration, 3 for a data directory that cannot be used, as ZooKeeper's server.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Settings => {
            use std::io::Write as _;
            // A reader that has closed the pipe has seen enough.
            let _ = std::io::stdout().write_all(crate::config::render_reference().as_bytes());
            ExitCode::SUCCESS
        }
    }
}
