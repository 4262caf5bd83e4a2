//! The program: one file per subcommand.

/// Runs the program with the process's arguments and returns its exit code.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
