//! The socket between host and worker: whole frames, with file descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use pajamas_plugin_api::{PluginError, TokenEvent};

use super::protocol::{HEADER, Header, Kind, LONGEST, MOST_DESCRIPTORS, Message, broken, encode_token};

/// Bytes that are asked for at once.
const CHUNK: usize = 64 << 10;

/// The sending end. Any thread may send; a frame is never mixed with another.
#[derive(Debug)]
pub struct Sender(Mutex<UnixStream>);

impl Sender {
    /// Sends through this socket.
    pub const fn new(socket: UnixStream) -> Self {
        Self(Mutex::new(socket))
    }

    /// Sends a message of a call.
    ///
    /// # Errors
    /// When the other side is gone, takes nothing, or the message is too long.
    pub fn send(&self, call: u64, message: &Message) -> io::Result<()> {
        self.send_with(call, message, &[], None)
    }

    /// As [`send`](Self::send), with bytes and a descriptor.
    ///
    /// # Errors
    /// As for that.
    pub fn send_with(
        &self,
        call: u64,
        message: &Message,
        blob: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.frame(Kind::Message, call, &serde_json::to_vec(message)?, blob, file)
    }

    /// Sends a token.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn token(&self, call: u64, token: TokenEvent<'_>) -> io::Result<()> {
        self.frame(Kind::Token, call, &[], &encode_token(token), None)
    }

    fn frame(
        &self,
        kind: Kind,
        call: u64,
        json: &[u8],
        blob: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        if json.len() > LONGEST || blob.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long for one message"));
        }
        let descriptors = usize::from(file.is_some());
        let header = Header { json: json.len(), blob: blob.len(), call, kind, descriptors };
        let mut frame = Vec::with_capacity(header.total());
        frame.extend(header.encode());
        frame.extend(json);
        frame.extend(blob);
        let raw: Vec<i32> = file.iter().map(AsRawFd::as_raw_fd).collect();
        let mut rights: &[ControlMessage<'_>] = &[ControlMessage::ScmRights(&raw)];
        if raw.is_empty() {
            rights = &[];
        }
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let parts = [IoSlice::new(rest)];
            match sendmsg::<()>(socket.as_raw_fd(), &parts, rights, quiet(), None) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    rights = &[];
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A peer that is gone is an error, not a signal. macOS has no such flag; there Rust ignores the signal.
fn quiet() -> MsgFlags {
    #[cfg(target_os = "linux")]
    return MsgFlags::MSG_NOSIGNAL;
    #[cfg(not(target_os = "linux"))]
    MsgFlags::empty()
}

/// What came.
#[derive(Debug)]
pub struct Incoming {
    /// The call it belongs to.
    pub call: u64,
    /// The message; `None` for a token, which is the blob.
    pub message: Option<Message>,
    /// Bytes that came with it.
    pub blob: Vec<u8>,
    /// A descriptor that came with it.
    pub file: Option<OwnedFd>,
}

/// The receiving end, for one thread.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixStream,
    /// Room for what comes, made once: what came and is not decoded yet lies from `begin` to `end`.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    files: VecDeque<OwnedFd>,
}

/// Why there is no message.
#[derive(Debug)]
pub enum Silence {
    /// The socket's time ran out.
    Nothing,
    /// The other side is gone.
    Gone,
    /// It sent what it must not.
    Broken(PluginError),
}

impl Receiver {
    /// Receives from this socket.
    pub const fn new(socket: UnixStream) -> Self {
        Self { socket, buffer: Vec::new(), begin: 0, end: 0, files: VecDeque::new() }
    }

    /// The next message.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next(&mut self) -> Result<Incoming, Silence> {
        loop {
            if let Some(found) = self.decode().map_err(Silence::Broken)? {
                return Ok(found);
            }
            self.fill()?;
        }
    }

    fn decode(&mut self) -> Result<Option<Incoming>, PluginError> {
        let bytes = &self.buffer[self.begin..self.end];
        let Some(header) = Header::decode(bytes)? else { return Ok(None) };
        if bytes.len() < header.total() {
            return Ok(None);
        }
        let (json, blob) = bytes[HEADER..header.total()].split_at(header.json);
        let message = match header.kind {
            Kind::Token => None,
            Kind::Message => Some(serde_json::from_slice(json).map_err(|e| broken(e.to_string()))?),
        };
        let blob = blob.to_vec();
        let mut file = None;
        for _ in 0..header.descriptors {
            file = self.files.pop_front();
            if file.is_none() {
                return Err(broken("a descriptor did not come".to_owned()));
            }
        }
        self.begin += header.total();
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            self.buffer.truncate(4 * CHUNK);
            self.buffer.shrink_to(4 * CHUNK);
        }
        Ok(Some(Incoming { call: header.call, message, blob, file }))
    }

    fn fill(&mut self) -> Result<(), Silence> {
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.resize(self.end + CHUNK, 0);
        }
        match self.receive() {
            Ok(0) => Err(Silence::Gone),
            Ok(got) => {
                self.end += got;
                Ok(())
            }
            Err(nix::Error::EINTR) => Ok(()),
            Err(nix::Error::EAGAIN) => Err(Silence::Nothing),
            Err(_) => Err(Silence::Gone),
        }
    }

    /// Receives behind what came before.
    fn receive(&mut self) -> nix::Result<usize> {
        let mut control = nix::cmsg_space!([i32; MOST_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(&mut self.buffer[self.end..])];
        #[cfg(target_os = "linux")]
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = MsgFlags::empty();
        let got = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(files) = message {
                // SAFETY: the kernel has just made these for us, and nobody else knows them.
                self.files.extend(files.into_iter().map(|file| unsafe { OwnedFd::from_raw_fd(file) }));
            }
        }
        Ok(got.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn frames_come_whole_in_order_and_with_their_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, mut receiver) = (Sender::new(ours), Receiver::new(theirs));
        let file = tempfile::tempfile().unwrap();
        let long = Message::Detokenize((0..100_000).collect());
        let sending = std::thread::spawn(move || {
            sender.send(1, &Message::Ping).unwrap();
            sender.send_with(2, &Message::Pong, b"bytes", Some(file.as_fd())).unwrap();
            sender.send(3, &long).unwrap();
            let token = TokenEvent { id: 9, text: "ab", logprob: 0.5, extras: "" };
            sender.token(4, token).unwrap();
        });
        let first = receiver.next().unwrap();
        assert_eq!((first.call, first.message), (1, Some(Message::Ping)));
        let second = receiver.next().unwrap();
        assert_eq!((second.blob.as_slice(), second.file.is_some()), (b"bytes".as_slice(), true));
        let Some(Message::Detokenize(ids)) = receiver.next().unwrap().message else { panic!("another") };
        assert_eq!(ids.len(), 100_000);
        assert!(receiver.next().unwrap().message.is_none());
        sending.join().unwrap();
        assert!(matches!(receiver.next(), Err(Silence::Gone)));
    }

    #[test]
    fn what_is_no_frame_ends_the_conversation() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[0xff; 64]).unwrap();
        assert!(matches!(Receiver::new(theirs).next(), Err(Silence::Broken(_))));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let promised = Header { json: 2, blob: 0, call: 1, kind: Kind::Message, descriptors: 1 };
        ours.write_all(&promised.encode()).unwrap();
        ours.write_all(b"{}").unwrap();
        assert!(matches!(Receiver::new(theirs).next(), Err(Silence::Broken(_))));
    }
}
