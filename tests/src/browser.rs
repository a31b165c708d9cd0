//! A page in headless Chromium, driven over the DevTools protocol.
//!
//! Everything waits for a condition of the page, looked at with each frame that it draws.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::fixtures::Result;

/// The longest that a condition is waited for, in milliseconds.
const PATIENCE: u64 = 60_000;

/// A browser with one page. Dropping it ends it.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    sent: u64,
    /// What Chromium told meanwhile.
    events: Vec<Value>,
    // Removed after the browser has ended.
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium; where there is none, says which test is the poorer for it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Option<Self>> {
        let Some(program) = chromium() else {
            eprintln!("skipped: Chromium is not installed (Debian and Ubuntu: apt-get install chromium)");
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(program);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--disable-extensions", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().ok_or("standard error is a pipe")?).lines();
        let address = said
            .by_ref()
            .map_while(|line| line.ok())
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let address = address.ok_or("Chromium ended before it listened")?;
        // Read to the end, so that it can go on writing.
        std::thread::spawn(move || said.for_each(drop));
        let authority = address.trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(Duration::from_millis(2 * PATIENCE)))?;
        let (socket, _) = tungstenite::client(&address, stream)?;
        let mut browser =
            Self { child, socket, session: None, sent: 0, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log", "DOM", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(Some(browser))
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// Chromium's, and when it has gone.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read()? else { continue };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] != self.sent {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                return Err(format!("{method}: {error}").into());
            } else {
                return Ok(answer["result"].take());
            }
        }
    }

    /// Goes to an address and waits until it is loaded.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn open(&mut self, url: &str) -> Result<()> {
        let went = self.call("Page.navigate", json!({ "url": url }))?;
        if let Some(error) = went["errorText"].as_str() {
            return Err(format!("{url}: {error}").into());
        }
        self.wait("document.readyState === 'complete'").map(drop)
    }

    /// Loads the page again.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn reload(&mut self) -> Result<()> {
        let before = self.events.len();
        self.call("Page.reload", json!({}))?;
        while !self.events[before..].iter().any(|event| event["method"] == "Page.loadEventFired") {
            if let Message::Text(text) = self.socket.read()? {
                self.events.push(serde_json::from_str(&text)?);
            }
        }
        Ok(())
    }

    /// The value of an expression in the page; a promise is waited for.
    ///
    /// # Errors
    /// What the expression throws.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            return Err(format!("{expression}: {thrown}").into());
        }
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true, and gives its value.
    ///
    /// # Errors
    /// When that takes too long; the page's text then says where it was.
    pub fn wait(&mut self, expression: &str) -> Result<Value> {
        self.eval(&format!(
            "new Promise((resolve, reject) => {{
                const end = performance.now() + {PATIENCE};
                const look = () => {{
                    const value = {expression};
                    if (value) resolve(value);
                    else if (performance.now() > end) reject(new Error('never true; ' + document.body.innerText));
                    else requestAnimationFrame(look);
                }};
                look();
            }})"
        ))
    }

    /// Presses a key that has a name: `Enter`, `Tab`, `Escape`, `ArrowRight`.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            "ArrowRight" => (39, ""),
            _ => return Err(format!("the key {key} is not known here").into()),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for kind in [down, "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Types a text where the focus is.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Chooses files in a field.
    ///
    /// # Errors
    /// When there is no such field.
    pub fn choose(&mut self, selector: &str, files: &[&Path]) -> Result<()> {
        let expression = format!("document.querySelector('{selector}')");
        let field = self.call("Runtime.evaluate", json!({ "expression": expression }))?;
        let params = json!({ "objectId": field["result"]["objectId"], "files": files });
        self.call("DOM.setFileInputFiles", params).map(drop)
    }

    /// Sets the size of the window.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Makes the system prefer a colour scheme, `light` or `dark`.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            // Colours change at once.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// Draws the window into a PNG file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({}))?;
        Ok(std::fs::write(file, STANDARD.decode(shot["data"].as_str().unwrap_or_default())?)?)
    }

    /// The role and the name of everything a screen reader tells of.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn accessible(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}))?;
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let told = nodes.iter().filter(|node| node["ignored"] == false);
        Ok(told.map(|node| (text(node, "role"), text(node, "name"))).collect())
    }

    /// Errors that the page caused, and requests to anywhere but `authority`.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn problems(&mut self, authority: &str) -> Result<Vec<String>> {
        // What happened before this answer has been told before it.
        self.call("Runtime.evaluate", json!({ "expression": "0" }))?;
        let own = format!("http://{authority}/");
        let problem = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params.to_string()),
                "Runtime.consoleAPICalled" if params["type"] != "log" => Some(params.to_string()),
                "Log.entryAdded" if params["entry"]["level"] != "verbose" => Some(params.to_string()),
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str()?;
                    let fine = [own.as_str(), "blob:", "data:"].iter().any(|start| url.starts_with(start));
                    (!fine).then(|| format!("asked for {url}"))
                }
                _ => None,
            }
        };
        Ok(self.events.iter().filter_map(problem).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it. Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}
