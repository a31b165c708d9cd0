//! Another server with OpenAI's API, that answers as a test wants it to: also slowly, in part, wrongly and not at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fixtures::{Result, repository};

/// What it does with what is posted to it.
#[derive(Debug, Clone)]
pub enum Does {
    /// Answers this, byte for byte, and closes the connection.
    Say(Vec<u8>),
    /// Answers this, and then says nothing more until the other side closes the connection.
    Hold(Vec<u8>),
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its first line and its headers, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// A running server. Its thread ends with the test's process.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Connections that the other side closed while they were held.
    pub left: Receiver<()>,
}

#[derive(Debug)]
struct State {
    does: Does,
    there: bool,
    heard: Vec<Heard>,
}

impl Upstream {
    /// Starts one that does this.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(does: Does) -> Result<Self> {
        Self::start_with(does, None)
    }

    /// Starts one that speaks TLS, with the certificate of the fixtures for 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port, or the fixtures are damaged.
    pub fn start_tls(does: Does) -> Result<Self> {
        let folder = repository().join("tests/fixtures/tls");
        let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem"))?];
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Self::start_with(does, Some(Arc::new(config)))
    }

    fn start_with(does: Does, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { does, there: true, heard: Vec::new() }));
        let (sender, left) = channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, sender, tls) = (Arc::clone(&shared), sender.clone(), tls.clone());
                // A connection that breaks is the other side's matter.
                std::thread::spawn(move || match tls.map(ServerConnection::new).transpose() {
                    Ok(None) => drop(serve(stream, &state, &sender)),
                    Ok(Some(tls)) => drop(serve(StreamOwned::new(tls, stream), &state, &sender)),
                    Err(_) => {}
                });
            }
        });
        Ok(Self { address, state, left })
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// A `[[models]]` entry for a model of it.
    pub fn entry(&self, id: &str, more: &str) -> String {
        entry(id, &self.address.to_string(), "m", more)
    }

    /// Does something else from now on.
    pub fn now_does(&self, does: Does) {
        self.state().does = does;
    }

    /// Whether it says that it is there when it is asked for its models.
    pub fn is_there(&self, there: bool) {
        self.state().there = there;
    }

    /// What was posted to it so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.state().heard.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `[[models]]` entry for the model of another server.
pub fn entry(id: &str, authority: &str, model: &str, more: &str) -> String {
    format!(
        "[[models]]\nid = \"{id}\"\ntask = \"chat\"\nremote = {{ url = \"http://{authority}/v1\", model = \"{model}\"{more} }}\n"
    )
}

/// An answer over HTTP that ends where the connection does.
pub fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

/// A stream of events with this data.
pub fn events(data: &[&str]) -> Vec<u8> {
    let body: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
    answer("200 OK", "text/event-stream", &body)
}

fn serve(stream: impl Read + Write, state: &Mutex<State>, left: &Sender<()>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse()?;
        }
        // Names in lower case, values as they are.
        let line = line
            .split_once(": ")
            .map_or(line.to_owned(), |(name, value)| format!("{}: {value}", name.to_ascii_lowercase()));
        head.push_str(&line);
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let does = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if head.starts_with("GET ") {
            let there = state.there;
            drop(state);
            if there {
                reader.get_mut().write_all(&answer("200 OK", "application/json", "{\"data\":[]}"))?;
            }
            return Ok(());
        }
        state.heard.push(Heard { head, body: String::from_utf8(body)? });
        state.does.clone()
    };
    match does {
        Does::Say(answer) => {
            reader.get_mut().write_all(&answer)?;
            reader.get_mut().flush()?;
        }
        Does::Hold(answer) => {
            reader.get_mut().write_all(&answer)?;
            reader.get_mut().flush()?;
            // Nothing more comes from the other side but its end.
            let ended = reader.read(&mut [0; 1]);
            if !matches!(ended, Ok(1..)) {
                left.send(())?;
            }
        }
    }
    Ok(())
}
