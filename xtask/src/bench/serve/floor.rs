//! What any answer over a socket takes on this machine: the floor under what a host can add.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes of a request and of an answer: about those of a short completion.
const REQUEST: usize = 400;
const ANSWER: usize = 600;

/// A thread behind a socket that computes for a while and answers. It ends with the connection.
pub struct Floor(TcpStream);

impl Floor {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (mut server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        thread::spawn(move || {
            let mut request = [0; REQUEST];
            while server.read_exact(&mut request).is_ok() {
                let nanoseconds = request.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                let started = Instant::now();
                while started.elapsed() < Duration::from_nanos(nanoseconds) {
                    std::hint::spin_loop();
                }
                if server.write_all(&[0; ANSWER]).is_err() {
                    break;
                }
            }
        });
        Ok(Self(stream))
    }

    /// Milliseconds of an answer beyond the `computing` milliseconds that the thread is kept busy.
    pub fn ask(&mut self, computing: f64) -> Result<f64> {
        let mut request = [0; REQUEST];
        let nanoseconds = (computing * 1e6) as u64;
        request[..8].copy_from_slice(&nanoseconds.to_le_bytes());
        let started = Instant::now();
        self.0.write_all(&request)?;
        self.0.read_exact(&mut [0; ANSWER])?;
        Ok(started.elapsed().as_secs_f64() * 1e3 - computing)
    }
}
