//! The `menagerie` program: hands its arguments to the library and reports how it ended.

/// Gives back what a burst has taken, and does not keep what one thread has freed from the others, as the system's does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    menagerie::cli::run()
}
