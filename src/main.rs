//! The `menagerie` program: hands its arguments to the library and reports how it ended.

fn main() -> std::process::ExitCode {
    menagerie::cli::run()
}
