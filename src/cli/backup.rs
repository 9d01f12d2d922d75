//! Owns `corehub store backup`: copying a data folder itself, or having the server copy that has it. Lives on the main thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::config::Config;
use crate::control::{self, AdminFault};
use crate::store::{EmbeddedSettings, StoreOpenFault, Workbench};

use super::Exit;

/// How and where to.
#[derive(Debug)]
pub struct Wish<'a> {
    pub to: &'a Path,
    pub mib_per_second: Option<u64>,
    /// The admin address was named: no data folder is looked at.
    pub of_server: bool,
}

/// Copies, and returns when the copy is whole.
pub fn backup(config: &Config, settings: &EmbeddedSettings, wish: &Wish<'_>) -> anyhow::Result<Exit> {
    let to = std::path::absolute(wish.to).with_context(|| format!("--to {}", wish.to.display()))?;
    if wish.of_server {
        return have_copied(config, &to, wish.mib_per_second);
    }
    match Workbench::open(settings) {
        Ok(bench) => {
            let bytes_per_second = wish.mib_per_second.map_or(u64::MAX, |mib| mib << 20);
            let copied = bench.backup(&to, bytes_per_second)?;
            eprintln!("copied {} records, {} bytes, to {}", copied.records, copied.bytes, to.display());
            Ok(Exit::Done)
        }
        Err(StoreOpenFault::InUse { .. }) => have_copied(config, &to, wish.mib_per_second),
        Err(fault) => Err(fault.into()),
    }
}

/// Asks the server and waits.
fn have_copied(config: &Config, to: &PathBuf, mib_per_second: Option<u64>) -> anyhow::Result<Exit> {
    let ask = |method, body: Option<&Value>| -> Result<Value, AdminFault> {
        let key = config.admin.api_key.as_ref().map(|key| key.expose());
        control::ask(config.listen.admin, key, method, "/v1/store/backup", body)
    };
    let mut body = json!({"to": to});
    if let Some(mib) = mib_per_second {
        body["bytes_per_second"] = (mib << 20).into();
    }
    let begun = ask(Method::POST, Some(&body)).map_err(|fault| match fault {
        AdminFault::Refused { status: 401, .. } => anyhow::anyhow!("{fault}; set admin.api_key as the server has it"),
        fault => fault.into(),
    })?;
    eprintln!("the server at {} copies to {}", config.listen.admin, to.display());
    loop {
        std::thread::sleep(LOOK_EVERY);
        let told = ask(Method::GET, None).context("the backup may be under way or not")?;
        if told["to"] != begun["to"] || told["begun_at"] != begun["begun_at"] {
            bail!("the server has begun anew meanwhile: ask it again");
        }
        match told["state"].as_str() {
            Some("running") => {}
            Some("done") => {
                eprintln!("copied {} records, {} bytes", told["records"], told["bytes"]);
                return Ok(Exit::Done);
            }
            _ => bail!("the backup failed: {}", told["reason"].as_str().unwrap_or("the server does not say why")),
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
