//! A command in a terminal of its own, as `script` makes one: what only happens where somebody types.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::fixtures::Result;

/// Seconds after which a command is ended that does not show what is waited for.
const MOST: &str = "120";

/// A command that runs in a terminal. Ended when it is dropped.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    /// What was shown and not waited for yet.
    shown: Vec<u8>,
}

impl Terminal {
    /// Starts a command line in a terminal that keeps what is typed until it is read, and where no line is drawn twice.
    ///
    /// # Errors
    /// Where there is no `script`.
    pub fn start(line: &str) -> Result<Self> {
        let mut command = Command::new("timeout");
        command
            .args([MOST, "script", "--quiet", "--return", "--command", line, "/dev/null"])
            .env("TERM", "dumb");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let keys = child.stdin.take().ok_or("the terminal has no keys")?;
        let screen = child.stdout.take().ok_or("the terminal has no screen")?;
        Ok(Self { child, keys, screen, shown: Vec::new() })
    }

    /// Types.
    ///
    /// # Errors
    /// When the command has ended.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(self.keys.flush()?)
    }

    /// Waits until a text is shown; gives all up to its end.
    ///
    /// # Errors
    /// When the command ends without showing it, with what it showed.
    pub fn shows(&mut self, text: &str) -> Result<String> {
        loop {
            let found = self.shown.windows(text.len()).position(|shown| shown == text.as_bytes());
            if let Some(place) = found {
                let rest = self.shown.split_off(place + text.len());
                let before = std::mem::replace(&mut self.shown, rest);
                return Ok(String::from_utf8_lossy(&before).into_owned());
            }
            let mut some = [0; 1024];
            match self.screen.read(&mut some)? {
                0 => {
                    let shown = String::from_utf8_lossy(&self.shown);
                    return Err(format!("`{text}` was not shown, but {shown:?}").into());
                }
                more => self.shown.extend(&some[..more]),
            }
        }
    }

    /// Waits for the end; says whether the command ended well.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ends(mut self) -> Result<bool> {
        self.screen.read_to_end(&mut Vec::new())?;
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
