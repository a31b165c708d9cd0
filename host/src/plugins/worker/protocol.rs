//! What host and worker say to each other: framed messages, each with the number of the call it belongs to.
//!
//! A frame is a header of 20 bytes, then JSON, then bytes that are no JSON. All numbers are little-endian:
//! `json: u32, blob: u32, call: u64, kind: u8, descriptors: u8, mark: u16`. The peer is the same program, but a plugin
//! in it may have broken anything: what it sends is checked like a stranger's.

use pajamas_plugin_api::{
    DType, EmbedRequest, GenerateRequest, InferRequest, LoadRequest, PluginError, Prompt, TokenEvent, codes,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of all this: host and worker are one program, and a program that was replaced says so.
pub const VERSION: u32 = 1;
/// Bytes of a header.
pub const HEADER: usize = 20;
/// The most bytes of JSON, and of a blob, in one frame. Prompts and answers are text; tensors are in shared memory.
pub const LONGEST: usize = 256 << 20;
/// The most file descriptors with one frame.
pub const MOST_DESCRIPTORS: usize = 4;
/// Tokens and events that may be on their way in one call: then the worker waits, as it would for a slow caller.
pub const WINDOW: u32 = 256;

/// What frames begin with, last of the header: a stream that lost its place is noticed.
const MARK: u16 = 0x4a50;

/// A message, with the number of its call; 0 belongs to none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// To the worker, first of all: opens the plugin.
    Open {
        /// [`VERSION`].
        version: u32,
        /// The plugin's folder or library.
        plugin: std::path::PathBuf,
        /// Whether a manifest with a hash is insisted on.
        require_hash: bool,
        /// The operator's settings for the plugin.
        settings: Value,
        /// Which of its backends is meant.
        backend: String,
    },
    /// To the worker: [`Backend::estimate`](pajamas_plugin_api::Backend::estimate).
    Estimate(LoadRequest),
    /// To the worker: [`Backend::load`](pajamas_plugin_api::Backend::load); answered with the signature.
    Load(LoadRequest),
    /// To the worker: the rest are methods of [`Session`](pajamas_plugin_api::Session).
    Usage,
    /// To the worker, with inputs in shared memory.
    Infer(InferRequest, Tensors),
    /// To the worker.
    Generate(Box<GenerateRequest>),
    /// To the worker.
    Embed(EmbedRequest),
    /// To the worker.
    Tokenize(Prompt),
    /// To the worker.
    Detokenize(Vec<u32>),
    /// To the worker: an extension by name, of the backend or of the session. Answered with its number, or null.
    Find {
        /// Whether the session's is meant.
        of_session: bool,
        /// Its name.
        name: String,
    },
    /// To the worker: calls an extension; its input is the blob.
    Call(u64, Tensors),
    /// To the worker: an extension is no longer needed.
    Drop(u64),
    /// To the worker: this, which was cancelled before it began.
    Cancelled(Box<Self>),
    /// To the worker: the call should end.
    Cancel,
    /// To the worker: so many more tokens and events may come.
    Credit(u32),
    /// To the worker: whether the outputs it asked about may be written.
    Verdict(Result<(), Failure>),
    /// To the other side: what was in this memory has been read; it may be used again.
    Release(u64),
    /// To the other side: this memory will not be used again.
    Forget(u64),
    /// To the worker: are you there?
    Ping,
    /// To the host: yes.
    Pong,
    /// To the host: the plugin says this.
    Log {
        /// [`Level`](pajamas_plugin_api::Level) as a number.
        level: u8,
        /// The line.
        line: String,
    },
    /// To the host: loading goes on.
    Progress {
        /// How far, in 0..=1.
        fraction: f32,
        /// What is being done.
        what: String,
    },
    /// To the host: an event of an extension; its payload is the blob.
    Event(String),
    /// To the host: may these be written? Asked before much memory is taken.
    Allocate(Vec<Part>),
    /// To the host: outputs, with more to come.
    Output(Tensors),
    /// To the host: the call ended well, with its result and the last outputs. An extension's result is the blob.
    Done(Value, Tensors),
    /// To the host: the call ended with an error.
    Failed(Failure),
}

/// Tensors in one piece of shared memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensors {
    /// The memory's number among those of the sender; 0 for none.
    pub slab: u64,
    /// Its size, when its descriptor comes with this message.
    pub fresh: Option<u64>,
    /// The tensors.
    pub parts: Vec<Part>,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where it begins.
    pub offset: u64,
}

/// A [`PluginError`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    code: String,
    message: String,
    #[serde(default)]
    help: String,
}

impl From<PluginError> for Failure {
    fn from(PluginError { code, message, help }: PluginError) -> Self {
        Self { code, message, help }
    }
}

impl From<Failure> for PluginError {
    fn from(Failure { code, message, help }: Failure) -> Self {
        Self { code, message, help }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`Message`].
    Message = 1,
    /// A token: no JSON, since there are thousands a second.
    Token = 2,
}

/// How a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of JSON.
    pub json: usize,
    /// Bytes after it.
    pub blob: usize,
    /// The call.
    pub call: u64,
    /// What it holds.
    pub kind: Kind,
    /// Descriptors that came with it.
    pub descriptors: usize,
}

impl Header {
    /// As it is sent. Lengths beyond [`LONGEST`] are the sender's to refuse.
    pub fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&(self.json as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.blob as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.call.to_le_bytes());
        bytes[16] = self.kind as u8;
        bytes[17] = self.descriptors as u8;
        bytes[18..].copy_from_slice(&MARK.to_le_bytes());
        bytes
    }

    /// The header that `bytes` begin with; `None` when more are needed.
    ///
    /// # Errors
    /// `plugin-protocol` when they are none, or promise more than is allowed.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, PluginError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
        };
        let call = u64::from(u32_at(8) as u32) | u64::from(u32_at(12) as u32) << 32;
        let kind = match header[16] {
            1 => Kind::Message,
            2 => Kind::Token,
            other => return Err(broken(format!("a frame of the kind {other}"))),
        };
        let found =
            Self { json: u32_at(0), blob: u32_at(4), call, kind, descriptors: usize::from(header[17]) };
        if u16::from_le_bytes([header[18], header[19]]) != MARK {
            return Err(broken("a frame without its mark".to_owned()));
        }
        if found.json > LONGEST || found.blob > LONGEST || found.descriptors > MOST_DESCRIPTORS {
            return Err(broken(format!("a frame too large: {found:?}")));
        }
        Ok(Some(found))
    }

    /// Bytes of the whole frame.
    pub const fn total(&self) -> usize {
        HEADER + self.json + self.blob
    }
}

/// A token as bytes: `id: u32, logprob: f32, length of the text: u32`, the text, the extras.
pub fn encode_token(token: TokenEvent<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + token.text.len() + token.extras.len());
    bytes.extend(token.id.to_le_bytes());
    bytes.extend(token.logprob.to_le_bytes());
    bytes.extend((token.text.len() as u32).to_le_bytes());
    bytes.extend(token.text.as_bytes());
    bytes.extend(token.extras.as_bytes());
    bytes
}

/// The token that bytes are.
///
/// # Errors
/// `plugin-protocol` when they are none.
pub fn decode_token(bytes: &[u8]) -> Result<TokenEvent<'_>, PluginError> {
    let bad = || broken("a token that is none".to_owned());
    let (head, rest) = bytes.split_first_chunk::<12>().ok_or_else(bad)?;
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (text, extras) = rest.split_at_checked(u32_at(8) as usize).ok_or_else(bad)?;
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let extras = std::str::from_utf8(extras).map_err(|_| bad())?;
    Ok(TokenEvent { id: u32_at(0), text, logprob: f32::from_bits(u32_at(4)), extras })
}

/// The other side said what it must not.
pub fn broken(what: String) -> PluginError {
    PluginError::new(codes::PROTOCOL, format!("between host and worker: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn noise_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(header)) = Header::decode(&bytes) {
                prop_assert!(header.json <= LONGEST && header.blob <= LONGEST);
                let again = header.encode();
                prop_assert_eq!(again.as_slice(), &bytes[..HEADER]);
            }
            let _ = decode_token(&bytes);
            let _ = serde_json::from_slice::<Message>(&bytes);
        }

        #[test]
        fn a_changed_header_is_refused_or_stays_within_limits(
            json in 0usize..LONGEST, blob in 0usize..LONGEST, call: u64, at in 0usize..HEADER, to: u8
        ) {
            let header = Header { json, blob, call, kind: Kind::Message, descriptors: 1 };
            prop_assert_eq!(Header::decode(&header.encode()).unwrap(), Some(header));
            let mut bytes = header.encode();
            bytes[at] = to;
            if let Ok(Some(header)) = Header::decode(&bytes) {
                prop_assert!(header.total() <= HEADER + 2 * LONGEST);
            }
        }

        #[test]
        fn a_token_comes_through_whole_and_cut_never_panics(
            id: u32, text: String, extras: String, logprob in any::<f32>(), cut in 0usize..64
        ) {
            let bytes = encode_token(TokenEvent { id, text: &text, logprob, extras: &extras });
            let token = decode_token(&bytes).unwrap();
            prop_assert_eq!((token.id, token.text, token.extras), (id, text.as_str(), extras.as_str()));
            prop_assert_eq!(token.logprob.to_bits(), logprob.to_bits());
            let _ = decode_token(&bytes[..cut.min(bytes.len())]);
        }
    }

    #[test]
    fn half_a_header_waits_for_the_rest() {
        let header = Header { json: 2, blob: 3, call: 7, kind: Kind::Token, descriptors: 0 };
        assert_eq!(Header::decode(&header.encode()[..HEADER - 1]).unwrap(), None);
        assert_eq!(header.total(), 25);
    }
}
