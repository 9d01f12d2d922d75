//! Owns the command line: what may be asked, which part of the program answers, and the exit code.
//!
//! Never holds a rule of its own about options: they come from the table in `config`. Standard output carries only what was
//! asked for; everything else goes to standard error. Lives on the main thread.

mod arguments;
mod backup;
mod bench;
mod configuration;
mod dev;
mod doctor;
mod logging;
mod serve;
mod store;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

/// The process environment, handed in so that nothing below reads it.
type Environment = Vec<(OsString, OsString)>;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    /// Bad usage or configuration.
    Refused = 2,
    /// Stopped by a second signal.
    Stopped = 130,
}

/// Runs the program and returns its exit code.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to fail: help and version were asked for, usage errors have their exit code.
            let _ = error.print();
            return code(if error.use_stderr() { Exit::Refused } else { Exit::Done });
        }
    };
    let exit = dispatch(arguments.command, environment.into_iter().collect()).unwrap_or_else(|error| {
        eprintln!("corehub: {error:#}");
        Exit::Failed
    });
    code(exit)
}

fn dispatch(command: Command, environment: Environment) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(arguments) => serve::serve(arguments, environment),
        Command::Echo { listen } => serve::echo(listen),
        Command::Token(arguments) => token::token(&arguments, environment),
        Command::Config(command) => configuration::config(&command, environment),
        Command::Store(command) => store::store(&command, environment),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments, environment),
        Command::Version => print(concat!("corehub ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Writes what was asked for. A reader that has gone away, as in `| head`, is content.
fn print(text: &str) -> anyhow::Result<Exit> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

/// Cores this process may run on.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(words: &[&str], environment: &[(&str, &str)]) -> Exit {
        let arguments = Arguments::try_parse_from(words).expect("the words are in the grammar");
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        dispatch(arguments.command, environment).expect("no failure")
    }

    #[test]
    fn a_bad_configuration_is_refused_before_anything_starts() {
        assert_eq!(exit_of(&["corehub", "serve"], &[]), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "serve"], &[("COREHUB_AUTH__HMAC_SECRET", "")]), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "serve"], &[("COREHUB_AUTH__HMAC_SECRET", "short")]), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "serve", "--dev", "--set", "limits.connections=-1"], &[]), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "config", "check", "--set", "a.b=1"], &[]), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "config", "check", "--dev"], &[]), Exit::Done);
    }

    #[test]
    fn a_token_needs_a_user_and_a_secret() {
        let secret = [("COREHUB_AUTH__HMAC_SECRET", "0123456789abcdef0123456789abcdef")];
        assert_eq!(exit_of(&["corehub", "token", "--user", "ada"], &secret), Exit::Done);
        assert_eq!(exit_of(&["corehub", "token", "--user", ""], &secret), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "token", "--user", "ada", "--device", "\n"], &secret), Exit::Refused);
        assert_eq!(exit_of(&["corehub", "token", "--user", "ada", "--data", "/nonexistent"], &[]), Exit::Refused);
    }
}
