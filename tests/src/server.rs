//! A server of the built product, asked over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};

use serde_json::Value;

use crate::fixtures::Result;
use crate::product::{House, pajamas, piped};
#[cfg(unix)]
use crate::product::{interrupt, signal};

/// A server on a port of its own. Dropping it ends it.
pub struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
    house: House,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// What it says when it does not start.
    pub fn start(house: House) -> Result<Self> {
        Self::start_with(house, &["--listen", "127.0.0.1:0"])
    }

    /// Starts a server with flags of one's own, and waits until it answers.
    ///
    /// # Errors
    /// What it says when it does not start.
    pub fn start_with(house: House, flags: &[&str]) -> Result<Self> {
        Self::start_as(house, flags, &[])
    }

    /// As [`start_with`](Self::start_with), with variables in its environment.
    ///
    /// # Errors
    /// As for that.
    pub fn start_as(house: House, flags: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = pajamas()?;
        command.arg("--config").arg(house.config()).arg("serve").args(flags);
        command.envs(variables.iter().copied());
        let mut child = piped(command.stdin(Stdio::null())).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or("standard error is a pipe")?);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if stderr.read_line(&mut line)? == 0 {
                child.wait()?;
                return Err(format!("the server did not start:\n{said}").into());
            }
            if let Some(address) = line.trim().strip_prefix("pajamas listens on ") {
                let address = address.to_owned();
                return Ok(Self { child, stderr, address, house });
            }
            said.push_str(&line);
        }
    }

    /// The configuration it runs under.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// `127.0.0.1:PORT`.
    pub fn authority(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// What the system allows its process, as Linux writes it.
    ///
    /// # Errors
    /// When the process is gone.
    #[cfg(target_os = "linux")]
    pub fn limits(&self) -> Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/limits", self.child.id()))?)
    }

    /// Bytes of memory that its process has.
    ///
    /// # Errors
    /// When the process is gone.
    #[cfg(target_os = "linux")]
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// The processes that it started for models.
    ///
    /// # Errors
    /// When the system does not list processes.
    #[cfg(target_os = "linux")]
    pub fn workers(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // One that ends meanwhile is none. After the name in brackets: state, parent.
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
            if after.split(' ').nth(1).and_then(|parent| parent.parse().ok()) == Some(self.child.id()) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// How many files, sockets and pieces of memory its process has open.
    ///
    /// # Errors
    /// When the process is gone.
    #[cfg(target_os = "linux")]
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When there is no answer; a refusal is one.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Answer::read(agent.get(format!("{}{path}", self.address)).call()?)
    }

    /// Sends a body.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("{}{path}", self.address)).header("content-type", content_type);
        Answer::read(request.send(body)?)
    }

    /// Asks for what is at a path to be gone.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn delete(&self, path: &str) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Answer::read(agent.delete(format!("{}{path}", self.address)).call()?)
    }

    /// Asks for a path with headers of one's own.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.get(format!("{}{path}", self.address));
        Answer::read(
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call()?,
        )
    }

    /// Sends a JSON object, with headers of one's own.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request =
            agent.post(format!("{}{path}", self.address)).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::read(request.send(body.to_string())?)
    }

    /// Sends a JSON object.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Sends SIGHUP, which asks for the configuration to be read again.
    ///
    /// # Errors
    /// When the process is gone already.
    #[cfg(unix)]
    pub fn hang_up(&self) -> Result<()> {
        signal(&self.child, "-HUP")
    }

    /// Interrupts the server and waits for its end. Gives its exit status and what else it said on standard error.
    ///
    /// # Errors
    /// When it is gone already.
    #[cfg(unix)]
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        interrupt(&self.child)?;
        let mut said = String::new();
        while self.stderr.read_line(&mut said)? > 0 {}
        Ok((self.child.wait()?, said))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header `x-pajamas-route`.
    pub route: Option<String>,
    /// Its header `retry-after`.
    pub retry_after: Option<String>,
    /// Its headers that say what is left to a key, by what follows `x-ratelimit-`.
    pub left: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Answer {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Self> {
        let header = |name| response.headers().get(name).map(|v| v.to_str().map(str::to_owned)).transpose();
        let left = response.headers().iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-ratelimit-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Self {
            left: left.collect(),
            status: response.status().as_u16(),
            route: header("x-pajamas-route")?,
            retry_after: header("retry-after")?,
            body: response.body_mut().read_to_string()?,
        })
    }

    /// The body of a request that was carried out, or begun.
    ///
    /// # Errors
    /// When it was refused, or its body is no JSON.
    pub fn json(&self) -> Result<Value> {
        if ![200, 202].contains(&self.status) {
            return Err(format!("{}: {}", self.status, self.body).into());
        }
        Ok(serde_json::from_str(&self.body)?)
    }

    /// The status and the error of a request that was refused.
    ///
    /// # Errors
    /// When it was not, or its body does not say why.
    pub fn refusal(&self) -> Result<(u16, Value)> {
        let body: Value = serde_json::from_str(&self.body)?;
        match body.get("error") {
            Some(error) if self.status >= 400 => Ok((self.status, error.clone())),
            _ => Err(format!("no refusal: {}: {}", self.status, self.body).into()),
        }
    }

    /// The objects of a stream of server-sent events, which must end with `[DONE]`.
    ///
    /// # Errors
    /// When it does not, or holds something else than JSON.
    pub fn events(&self) -> Result<Vec<Value>> {
        let mut data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        if data.pop() != Some("[DONE]") {
            return Err(format!("the stream has no end: {}", self.body).into());
        }
        Ok(data.into_iter().map(serde_json::from_str).collect::<serde_json::Result<_>>()?)
    }
}
