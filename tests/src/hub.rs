//! A hub of models on this machine, that answers as a test wants it to: also in part, wrongly and not at all.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::fixtures::{Result, repository};
use crate::product::pajamas;

/// The commit that every revision is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The id of the one repository.
pub const ID: &str = "org/tiny";
/// Files of more bytes than this are large: named by their SHA-256, and sent from elsewhere.
const LARGE: usize = 100_000;

/// What a hub has, and how it behaves.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Path to content.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What its list has besides.
    pub listed: Vec<Value>,
    /// After how many bytes of a large file the connection breaks, request by request; not at all when there are no more.
    pub cuts: VecDeque<usize>,
    /// After how many bytes of a large file nothing more comes, and the connection stays.
    pub holds: Option<usize>,
    /// Contents are not what the list says: those of files whose path ends so.
    pub wrong: Option<String>,
    /// Does not know of ranges.
    pub no_ranges: bool,
    /// Its list has neither sizes nor sums.
    pub no_sums: bool,
    /// Refuses whoever asks for the list: status, `x-error-code`, `x-error-message`.
    pub refuses: Option<(u16, &'static str, &'static str)>,
    /// Only who shows this token is answered.
    pub token: Option<String>,
    /// Where it sends for large files: another server's authority.
    pub away: Option<String>,
    /// What it was asked.
    pub heard: Vec<Heard>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// `GET` or `HEAD`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The first byte that was asked for.
    pub from: usize,
    /// The token that was shown.
    pub authorization: Option<String>,
}

/// A running hub. Its thread ends with the test's process.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// The repository's own chat model, and files beside it that no conversion reads.
///
/// # Errors
/// When it cannot be read.
pub fn chat_model() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join("models/chat/hf"))? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file has a name")?.to_string_lossy().into_owned();
        files.insert(name, std::fs::read(path)?);
    }
    for name in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"] {
        files.insert(name.to_owned(), b"nobody reads this".to_vec());
    }
    Ok(files)
}

impl Hub {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(state: State) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let hub = Self { address: listener.local_addr()?, state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&hub.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A connection that breaks is the other side's matter.
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Ok(hub)
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// What it has and does, to be changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was asked since this was asked for the last time.
    pub fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.state().heard)
    }

    /// A command of the product that asks this hub, keeps its files in `home`, and has nothing of whoever runs the tests.
    ///
    /// # Errors
    /// When the product is not built and packed.
    pub fn command(&self, home: &Path) -> Result<Command> {
        let mut command = pajamas()?;
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("hf_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", format!("http://{}", self.address)).env("HF_HOME", home);
        Ok(command)
    }
}

/// What the hub and the cache call a content: git's sum of small files, the SHA-256 of large ones.
pub fn sum(content: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    match content.len() > LARGE {
        true => hex(&Sha256::digest(content)),
        false => {
            let mut sum = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
            sum.update(content);
            hex(&sum.finalize())
        }
    }
}

fn list(state: &State) -> Value {
    let entry = |(path, content): (&String, &Vec<u8>)| match (state.no_sums, content.len() > LARGE) {
        (true, _) => json!({ "rfilename": path }),
        (_, true) => {
            let lfs = json!({ "sha256": sum(content), "size": content.len(), "pointerSize": 135 });
            json!({ "rfilename": path, "size": content.len(), "blobId": "0".repeat(40), "lfs": lfs })
        }
        (_, false) => json!({ "rfilename": path, "size": content.len(), "blobId": sum(content) }),
    };
    let files: Vec<Value> = state.files.iter().map(entry).chain(state.listed.iter().cloned()).collect();
    json!({ "id": ID, "sha": COMMIT, "private": false, "siblings": files })
}

fn read(stream: &TcpStream) -> Result<Option<Heard>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().ok_or("no method")?, words.next().ok_or("no path")?);
    let mut heard = Heard { method, path, from: 0, authorization: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                heard.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse()?;
            }
            "authorization" => heard.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(heard))
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> Result<()> {
    let Some(heard) = read(stream)? else { return Ok(()) };
    // What the answer is made of is as it was when the request came.
    let (state, cut) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.heard.push(heard.clone());
        let large = state.files.iter().any(|(path, c)| c.len() > LARGE && heard.path.contains(path.as_str()));
        let sends = large && heard.method == "GET" && state.away.is_none();
        let cut = if sends { state.cuts.pop_front() } else { None };
        (state.clone(), cut)
    };
    let shown = state.token.as_ref().map(|token| format!("Bearer {token}"));
    let (status, code, words) = match (&state.refuses, heard.path.starts_with("/api/")) {
        (Some(refusal), true) => *refusal,
        _ if shown.is_some() && shown != heard.authorization => (401, "GatedRepo", "Access is restricted"),
        _ => (200, "", ""),
    };
    if status != 200 {
        let head = format!(
            "HTTP/1.1 {status} No\r\nx-error-code: {code}\r\nx-error-message: {words}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        return Ok(stream.write_all(head.as_bytes())?);
    }
    if heard.path.starts_with(&format!("/api/models/{ID}/revision/")) {
        let list = list(&state).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{list}",
            list.len()
        );
        return Ok(stream.write_all(head.as_bytes())?);
    }
    if heard.path.starts_with("/api/") {
        let head = "HTTP/1.1 404 Not Found\r\nx-error-code: RepoNotFound\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return Ok(stream.write_all(head.as_bytes())?);
    }
    let path = heard.path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/"));
    let path = path.and_then(|path| path.split('?').next()).unwrap_or_default();
    let Some(content) = state.files.get(path) else {
        let head = "HTTP/1.1 404 Not Found\r\nx-error-code: EntryNotFound\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return Ok(stream.write_all(head.as_bytes())?);
    };
    send(stream, &state, &heard, content, cut)
}

fn send(
    mut stream: &TcpStream,
    state: &State,
    heard: &Heard,
    content: &[u8],
    cut: Option<usize>,
) -> Result<()> {
    let (name, all) = (sum(content), content.len());
    let large = all > LARGE;
    let mut head = String::new();
    if large && let Some(away) = &state.away {
        write!(
            head,
            "HTTP/1.1 302 Found\r\nlocation: http://{away}{}?signature=1\r\nx-linked-etag: \"{name}\"\r\nx-linked-size: {all}\r\n\
             x-repo-commit: {COMMIT}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            heard.path
        )?;
        return Ok(stream.write_all(head.as_bytes())?);
    }
    let mut body = content.to_vec();
    if state.wrong.as_ref().is_some_and(|end| heard.path.ends_with(end.as_str())) {
        body[all / 2] ^= 1;
    }
    let from = if state.no_ranges { 0 } else { heard.from };
    match from {
        0 => write!(head, "HTTP/1.1 200 OK\r\n")?,
        from => {
            write!(head, "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{all}\r\n", all - 1)?
        }
    }
    write!(head, "etag: \"{name}\"\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", all - from)?;
    stream.write_all(head.as_bytes())?;
    if heard.method == "HEAD" {
        return Ok(());
    }
    let rest = &body[from..];
    let holds = state.holds.filter(|_| large);
    let most = cut.or(holds).unwrap_or(rest.len()).min(rest.len());
    stream.write_all(&rest[..most])?;
    if holds.is_some() {
        // Nothing more comes from the other side but its end.
        let _ = stream.read(&mut [0; 1]);
    }
    Ok(())
}
