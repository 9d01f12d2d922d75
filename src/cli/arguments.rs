//! Owns the grammar of the command line and its way into configuration flags. Never runs anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Flag, Sources};

use super::Environment;
use super::bench::BenchArguments;
use super::store::StoreCommand;

/// A sharded, thread-per-core WebSocket instant-messaging server.
#[derive(Debug, Parser)]
#[command(name = "corehub", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArguments),
    /// Print a token (JWT) for a user.
    Token(TokenArguments),
    /// Check a configuration, or print a sample or the reference.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look after a data folder.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Load a server and measure what it costs.
    Bench(BenchArguments),
    /// Tell whether this machine can run the server, and what to change.
    Doctor(DoctorArguments),
    /// Answer every WebSocket message with itself, without authentication: for conformance suites.
    Echo {
        /// Address and port.
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// Print the version.
    Version,
}

/// Where a configuration comes from besides the environment.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArguments {
    /// TOML file; `corehub config sample` prints one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any option; wins over file and environment. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Address for clients (`listen.client`).
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address for operators (`listen.admin`).
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Data folder (`store.path`).
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Number of shards, or auto (`shards.count`).
    #[arg(long, value_name = "N|auto")]
    pub shards: Option<String>,
    /// Try it out: makes a secret, prints a token, allows localhost origins.
    #[arg(long)]
    pub dev: bool,
}

#[derive(Clone, Debug, Args)]
pub struct TokenArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Data folder of a server started with --dev (`store.path`).
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Who the token is for (`sub`).
    #[arg(long, value_name = "ID")]
    pub user: String,
    /// Ties the token to a device (`device_id`).
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// How long it is valid, such as 30m, 1h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ttl)]
    pub ttl: Duration,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell everything that is wrong, then the worst-case memory.
    Check {
        #[command(flatten)]
        serve: ServeArguments,
    },
    /// Print a commented file with every option and its default.
    Sample,
    /// Print the reference (docs/CONFIG.md).
    Reference,
}

#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    pub serve: ServeArguments,
}

impl ConfigArguments {
    /// The sources these arguments name; `named` are options with flags of their own, which win over `--set`.
    pub fn sources(&self, environment: Environment, named: &[(&str, &str, Option<&str>)], dev: bool) -> Sources {
        let set = self.set.iter().map(|text| Flag::set(text));
        let named = named.iter().filter_map(|(name, path, value)| {
            let value = (*value)?.to_owned();
            Some(Flag { name: (*name).to_owned(), path: (*path).to_owned(), value })
        });
        Sources { file: self.config.clone(), environment, flags: set.chain(named).collect(), dev }
    }
}

impl ServeArguments {
    pub fn sources(&self, environment: Environment) -> Sources {
        let named = [
            ("--listen", "listen.client", self.listen.as_deref()),
            ("--admin", "listen.admin", self.admin.as_deref()),
            ("--data", "store.path", self.data.as_deref()),
            ("--shards", "shards.count", self.shards.as_deref()),
        ];
        self.config.sources(environment, &named, self.dev)
    }

    pub fn load(&self, environment: Environment) -> Result<Config, ConfigErrors> {
        Config::load(&self.sources(environment))
    }
}

impl TokenArguments {
    pub fn sources(&self, environment: Environment) -> Sources {
        // As with --dev, because the secret may be the one that --dev made, which no source names.
        self.config.sources(environment, &[("--data", "store.path", self.data.as_deref())], true)
    }
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    match crate::config::parse_duration(text) {
        Some(ttl) if ttl >= Duration::from_secs(1) && ttl <= TTL_MAX => Ok(ttl),
        _ => Err("write a duration like 30m, 1h or 7d, from 1s to 3650d".to_owned()),
    }
}

const TTL_MAX: Duration = Duration::from_secs(3_650 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(words.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_reach_their_options() {
        let words = "corehub serve --listen 127.0.0.1:1 --admin [::1]:2 --data /d --shards 3 --dev --set sessions.per_user=4";
        let Ok(Command::Serve(arguments)) = parse(words) else { panic!("{words}") };
        let config = arguments.load(Vec::new()).expect("good flags");
        assert_eq!(config.listen.client, "127.0.0.1:1".parse().unwrap());
        assert_eq!(config.listen.admin, "[::1]:2".parse().unwrap());
        assert_eq!(config.store.path, PathBuf::from("/d"));
        assert_eq!(config.shards.count, crate::config::ShardCount::Exactly(3));
        assert_eq!(config.sessions.per_user, 4);
        assert!(config.dev);
    }

    #[test]
    fn a_bad_flag_is_named() {
        let Ok(Command::Serve(arguments)) = parse("corehub serve --listen 80 --set a.b=1") else { panic!("grammar") };
        let errors = arguments.load(Vec::new()).expect_err("bad flags").to_string();
        assert!(errors.contains("flag --set: a.b is not a key"), "{errors}");
        assert!(errors.contains("flag --listen: listen.client is \"80\""), "{errors}");
        assert!(errors.contains("auth.hmac_secret is not set"), "{errors}");
    }

    #[test]
    fn a_secret_with_a_slip_is_not_echoed() {
        let words = "corehub serve --set auth.hmac_secret:0123456789abcdef0123456789abcdef";
        let Ok(Command::Serve(arguments)) = parse(words) else { panic!("grammar") };
        let errors = arguments.load(Vec::new()).expect_err("no value").to_string();
        assert!(errors.contains("flag --set: cannot be read: write it as section.key=value"), "{errors}");
        assert!(!errors.contains("0123"), "{errors}");
    }

    #[test]
    fn a_lifetime_is_a_duration() {
        let Ok(Command::Token(arguments)) = parse("corehub token --user a --ttl 90m") else { panic!("grammar") };
        assert_eq!(arguments.ttl, Duration::from_secs(5_400));
        assert!(parse("corehub token --user a --ttl 0").is_err());
        assert!(parse("corehub token --user a --ttl soon").is_err());
    }
}
