//! `pajamas serve`: models over HTTP.

use std::sync::Arc;

use clap::Args;

use super::Global;
use super::session::cancel_on_interrupt;
use crate::config::Override;
use crate::error::Result;
use crate::host::Host;
use crate::server;

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen [default: server.listen of the configuration, 127.0.0.1:8797]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

impl Serve {
    pub fn run(self, global: &Global) -> Result<()> {
        let listen =
            self.listen.map(|value| Override { flag: "--listen".into(), key: "server.listen".into(), value });
        let config = global.config_with(listen)?;
        let cancel = cancel_on_interrupt();
        let host = Arc::new(Host::start(config)?);
        server::serve(host, &cancel)
    }
}
