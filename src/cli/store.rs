//! Owns `corehub store`: what operators do with a data folder. Never decides what is right about its content: the store does.
//! Lives on the main thread.

use clap::Subcommand;

use crate::store;

use super::{Environment, Exit, print};

/// `corehub store ...`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Print a line with a new key for `store.encryption_key_file`.
    Key {
        /// Names the key: up to 16 letters, digits, dots, dashes or underscores.
        #[arg(long, value_name = "ID", default_value = "1")]
        id: String,
    },
}

/// Runs one of them.
pub fn store(command: &StoreCommand, _environment: Environment) -> anyhow::Result<Exit> {
    match command {
        StoreCommand::Key { id } => key(id),
    }
}

fn key(id: &str) -> anyhow::Result<Exit> {
    match store::new_key_line(id) {
        Ok(line) => print(&format!("{}\n", *line)),
        Err(fault @ store::KeyFileFault::Id(_)) => {
            eprintln!("corehub: --id: {fault}");
            Ok(Exit::Refused)
        }
        Err(fault) => Err(fault.into()),
    }
}
