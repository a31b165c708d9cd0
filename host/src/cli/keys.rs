//! `pajamas keys`: keys of the server, whose hashes the configuration holds.

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use sha2::Digest;

use super::{Global, output};
use crate::config::{Id, Scope, Sha256};
use crate::error::{Error, Result};

/// What a key begins with, so that whoever finds one knows what it is.
const PREFIX: &str = "pj-";

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key: it is printed once, with the lines for pajamas.toml that hold its hash
    New {
        /// What logs call its owner
        name: String,
        /// What it opens
        #[arg(long, value_enum, value_delimiter = ',', default_value = "infer")]
        scopes: Vec<Opens>,
    },
}

/// What a key opens.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Opens {
    /// Requests to models
    Infer,
    /// /metrics
    Metrics,
    /// /admin: models, plugins, configuration, events
    Admin,
}

impl KeysCommand {
    pub fn run(self, global: &Global) -> Result<()> {
        let Self::New { name, scopes } = self;
        let name: Id = name.parse().map_err(|e: String| Error::new("invalid-option", e))?;
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|e| Error::new("internal", format!("the system gives no random bytes: {e}")))?;
        let key: String = random.iter().fold(PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}"));
        let hash = Sha256(sha2::Sha256::digest(key.as_bytes()).into());
        let scopes: Vec<&str> = scopes.into_iter().map(|scope| scope.scope().name()).collect();
        if global.json {
            let entry = json!({ "name": name, "sha256": hash, "scopes": scopes });
            return output::json_line(&json!({ "key": key, "entry": entry }));
        }
        output::line(&format!(
            "{key}\n\nKeep it: it is not shown again. For pajamas.toml:\n\n[[server.keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nscopes = {scopes:?}"
        ))
    }
}

impl Opens {
    fn scope(self) -> Scope {
        match self {
            Self::Infer => Scope::Infer,
            Self::Metrics => Scope::Metrics,
            Self::Admin => Scope::Admin,
        }
    }
}
