//! The corehub program: hands over to `cli`. Owns the choice of allocator and nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    corehub::cli::run(std::env::args_os(), std::env::vars_os())
}
