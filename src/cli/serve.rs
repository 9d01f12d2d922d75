//! Owns the commands that run a server: from arguments to a checked configuration with its secret, and what a developer is told
//! when the server is ready. Never runs the server itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;

use crate::config::{Algorithm, Config, ConfigErrors};
use crate::server::{ExitKind, Ready, ServeOptions};
use crate::types::UserId;

use super::arguments::ServeArguments;
use super::{Environment, Exit, dev, logging, token};

/// `corehub serve`.
pub fn serve(arguments: ServeArguments, environment: Environment) -> anyhow::Result<Exit> {
    let mut config = match arguments.load(environment.clone()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&errors)),
    };
    let level = logging::start(&config.log);
    if config.dev {
        prepare_dev(&mut config)?;
    }
    let started = config.clone();
    let reload = move || {
        let mut new = arguments.load(environment.clone())?;
        level.set(new.log.level);
        keep_dev_secret(&started, &mut new);
        Ok(new)
    };
    let dev = config.dev;
    let announced = config.clone();
    let on_ready = move |ready: Ready| {
        if announced.dev {
            announce(&announced, ready);
        }
    };
    let exit = crate::server::serve(config, ServeOptions { dev, on_ready: Box::new(on_ready), reload: Box::new(reload) })?;
    Ok(exit_of(exit))
}

/// `corehub echo`.
pub fn echo(listen: SocketAddr) -> anyhow::Result<Exit> {
    logging::start(&Config::default().log);
    Ok(exit_of(crate::server::echo(listen)?))
}

/// Tells all errors.
pub fn refuse(errors: &ConfigErrors) -> Exit {
    eprintln!("{errors}");
    eprintln!("corehub: {} in the configuration; docs/CONFIG.md lists every option", count(errors.0.len()));
    Exit::Refused
}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}

fn exit_of(exit: ExitKind) -> Exit {
    match exit {
        ExitKind::Done => Exit::Done,
        ExitKind::Stopped => Exit::Stopped,
    }
}

/// Gives a configuration without a secret the data folder's own.
fn prepare_dev(config: &mut Config) -> anyhow::Result<()> {
    if config.auth.hmac_secret.is_none() {
        config.auth.hmac_secret = Some(dev::secret(&config.store.path).context("--dev needs a secret")?);
    }
    if !config.auth.algorithms.contains(&Algorithm::Hs256) {
        config.auth.algorithms.push(Algorithm::Hs256);
    }
    if !config.listen.client.ip().is_loopback() {
        tracing::warn!(address = %config.listen.client, "--dev on an address that others can reach: its rules are relaxed");
    }
    Ok(())
}

/// The secret that `prepare_dev` put in is no change of the operator's.
fn keep_dev_secret(started: &Config, new: &mut Config) {
    if started.dev && new.auth.hmac_secret.is_none() {
        new.auth.hmac_secret = started.auth.hmac_secret.clone();
    }
    if started.dev && !new.auth.algorithms.contains(&Algorithm::Hs256) {
        new.auth.algorithms.push(Algorithm::Hs256);
    }
}

/// Tells a developer where to connect and with what.
fn announce(config: &Config, ready: Ready) {
    let user = UserId::new(DEV_USER).expect("a constant that is a good id");
    let made = token::issue_for(config, &user, None, DEV_TOKEN_TTL);
    let (client, admin) = (reachable(ready.client), reachable(ready.admin));
    eprintln!("WebSocket  ws://{client}/ws");
    eprintln!("Admin      http://{admin}/");
    match made {
        Ok(token) => {
            eprintln!("Token      {token}  (user {DEV_USER}, 24 h; others: corehub token --user ID --data DIR)");
            // Nobody may be reading; the server runs on all the same.
            let _ = super::print(&format!("{token}\n"));
        }
        Err(error) => eprintln!("Token      none: {error:#}"),
    }
}

/// What a client on this machine connects to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

const DEV_USER: &str = "dev";
const DEV_TOKEN_TTL: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn dev_config(folder: &std::path::Path, text: &str) -> Config {
        let text = format!("{text}\n[store]\npath = {:?}\n", folder.display().to_string());
        Config::parse("test", &text, true).expect("readable")
    }

    #[test]
    fn dev_makes_a_secret_only_when_none_is_given() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut given = dev_config(folder.path(), "[auth]\nhmac_secret = \"mine\"");
        prepare_dev(&mut given).expect("prepared");
        assert_eq!(given.auth.hmac_secret.expect("kept").expose(), b"mine");
        assert_eq!(dev::existing_secret(folder.path()).expect("no fault"), None);
        let mut made = dev_config(folder.path(), "");
        prepare_dev(&mut made).expect("prepared");
        assert_eq!(made.auth.hmac_secret, dev::existing_secret(folder.path()).expect("no fault"));
    }

    #[test]
    fn a_reload_does_not_see_the_dev_secret_as_a_change() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut started = dev_config(folder.path(), "");
        prepare_dev(&mut started).expect("prepared");
        let mut new = dev_config(folder.path(), "");
        keep_dev_secret(&started, &mut new);
        assert!(started.changes(&new).is_empty());
    }

    #[test]
    fn addresses_are_told_so_that_they_can_be_connected_to() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
