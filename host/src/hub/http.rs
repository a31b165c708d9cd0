//! Asking the hub, and the servers that it sends to: redirects that keep the token at home, tries that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pajamas_plugin_api::Cancel;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::outbound::{USER_AGENT, tls};

/// How often whoever waits looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// The longest that a server takes to be there, and to say something more.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// Redirects of one request.
const MOST_REDIRECTS: usize = 5;
/// Tries in a row that bring nothing, and tries of one file at all.
const MOST_FRUITLESS: u32 = 5;
const MOST_TRIES: u32 = 1000;
/// The first wait between tries, doubled with each that brings nothing, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Characters of what a hub says of a refusal.
const MOST_WORDS: usize = 300;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another try may bring one, after this long if the server says so.
    Again(Error, Option<Duration>),
    /// It will stay so.
    Never(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Never(error)
    }
}

/// An answer that was not refused.
pub(super) struct Answer {
    /// What the hub itself said, before it sent on to another server.
    pub hub: HeaderMap,
    /// What is to be read.
    pub response: Response<Body>,
}

impl Answer {
    /// The name of the file's content: the hub's own, for other servers name it otherwise.
    pub fn etag(&self) -> Option<String> {
        let named = header(&self.hub, "x-linked-etag").or_else(|| header(&self.hub, "etag"))?;
        Some(plain_etag(named).to_owned())
    }

    /// The size of the file.
    pub fn size(&self) -> Option<u64> {
        let own =
            self.response.status().is_success().then(|| header(self.response.headers(), "content-length"));
        header(&self.hub, "x-linked-size").or(own.flatten())?.parse().ok()
    }
}

/// A header's text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// An etag without its quotes and without the mark that it is weak.
fn plain_etag(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Asks for one run of work, which `cancel` ends at any time.
pub(super) struct Http {
    agent: Agent,
    settings: Settings,
    /// Scheme, host and port of the hub.
    home: Option<(String, String)>,
    cancel: Cancel,
    done: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl Http {
    pub fn new(settings: &Settings, cancel: &Cancel) -> Result<Self> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // They are followed by hand: the token goes to the hub and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .user_agent(USER_AGENT)
            .tls_config(tls())
            .build()
            .new_agent();
        let done = Arc::new(AtomicBool::new(false));
        let (watched, cancelled, over) = (agent.clone(), cancel.clone(), Arc::clone(&done));
        // Nothing is said while a server is silent: whoever cancels closes its connections.
        let watch = std::thread::Builder::new().name("hub".to_owned()).spawn(move || {
            while !over.load(Ordering::Acquire) {
                if cancelled.is_cancelled() {
                    return watched.shutdown();
                }
                std::thread::sleep(CANCEL_POLL);
            }
        });
        let watch =
            watch.map_err(|e| Error::new("internal", format!("no thread to ask the hub with: {e}")))?;
        let home = settings.endpoint.parse().ok().and_then(|uri| origin(&uri));
        Ok(Self { agent, settings: settings.clone(), home, cancel: cancel.clone(), done, watch: Some(watch) })
    }

    /// Asks for what lies at a path of the hub.
    pub fn get(&self, path: &str, range_from: u64) -> Result<Answer, Failure> {
        self.send(path, Some(range_from))
    }

    /// Asks what the hub knows of a file, and for nothing of it.
    pub fn head(&self, path: &str) -> Result<Answer, Failure> {
        self.send(path, None)
    }

    fn send(&self, path: &str, range_from: Option<u64>) -> Result<Answer, Failure> {
        let mut url = format!("{}{path}", self.settings.endpoint);
        let mut hub = None;
        for _ in 0..=MOST_REDIRECTS {
            self.cancel.check().map_err(Error::from)?;
            let uri: Uri = url.parse().map_err(|_| nonsense("an address that is none"))?;
            let at_home = origin(&uri).is_some() && origin(&uri) == self.home;
            let host = uri.host().unwrap_or_default().to_owned();
            let mut request = match range_from {
                Some(_) => self.agent.get(&url),
                None => self.agent.head(&url),
            };
            if let Some(from) = range_from.filter(|from| *from > 0) {
                request = request.header("range", format!("bytes={from}-"));
            }
            if let Some(token) = self.settings.token.as_ref().filter(|_| at_home) {
                request = request.header("authorization", token.authorization());
            }
            let response = request.call().map_err(|error| self.unreachable(&host, &error))?;
            let status = response.status().as_u16();
            let headers = hub.get_or_insert_with(|| response.headers().clone());
            let next = match status {
                301 | 302 | 303 | 307 | 308 => header(response.headers(), "location"),
                _ => None,
            };
            let Some(next) = next else {
                return match status {
                    200..=299 | 416 => Ok(Answer { hub: headers.clone(), response }),
                    _ => Err(self.refusal(status, &host, response.headers())),
                };
            };
            let next = join(&uri, next).ok_or_else(|| nonsense("a redirect to no address"))?;
            let away = next.parse().ok().and_then(|uri| origin(&uri)) != self.home;
            if range_from.is_none() && away {
                // Only the hub knows what the file is called here.
                return Ok(Answer { hub: headers.clone(), response });
            }
            // A hub that moves a file within itself names it where it lies.
            if at_home && !away {
                hub = None;
            }
            url = next;
        }
        Err(Failure::Never(nonsense("a redirect after the other")))
    }

    /// Reads a whole answer of bounded length.
    pub fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, Failure> {
        use std::io::Read as _;
        let answer = self.get(path, 0)?;
        let mut bytes = Vec::new();
        let mut body = answer.response.into_body().into_with_config().limit(most).reader();
        body.read_to_end(&mut bytes).map_err(|error| self.broken(&error))?;
        Ok(bytes)
    }

    /// Why a body could not be read to its end.
    pub fn broken(&self, error: &std::io::Error) -> Failure {
        if self.cancel.is_cancelled() {
            return Failure::Never(cancelled());
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(ureq::Error::BodyExceedsLimit(most)) => {
                Failure::Never(nonsense(&format!("more than {most} bytes")))
            }
            _ => Failure::Again(unavailable(format!("the connection broke: {error}")), None),
        }
    }

    fn unreachable(&self, host: &str, error: &ureq::Error) -> Failure {
        if self.cancel.is_cancelled() {
            return Failure::Never(cancelled());
        }
        let failed = unavailable(format!("{host} does not answer: {error}"));
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Tls(_) => Failure::Never(failed),
            _ => Failure::Again(failed, None),
        }
    }

    /// What a status means, in the hub's own words where it has some.
    fn refusal(&self, status: u16, host: &str, headers: &HeaderMap) -> Failure {
        let words: String =
            header(headers, "x-error-message").unwrap_or_default().chars().take(MOST_WORDS).collect();
        let words = self.settings.token.as_ref().map_or(words.clone(), |token| token.out_of(&words));
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let with = |code: &str| Error::new(code, format!("{host} answers {status}{words}"));
        let why = header(headers, "x-error-code").unwrap_or_default();
        Failure::Never(match (status, why) {
            (_, "RevisionNotFound") => {
                with("revision-not-found").help("name a branch, a tag or a commit of the repository")
            }
            (_, "EntryNotFound") => with("repository-file-not-found").help("look at the files of the repository"),
            (_, "RepoNotFound") | (404 | 410, _) => with("repository-not-found").help(format!(
                "check the id; a private repository is shown only to the right token, and {} is set",
                if self.settings.token.is_some() { "one" } else { "none (HF_TOKEN)" }
            )),
            (401 | 403, _) => with("repository-gated").help(match self.settings.token {
                None => "set HF_TOKEN to a token of yours; where the model's page asks for it, accept its licence there first",
                Some(_) => "accept the licence on the model's page, and see whether the token (HF_TOKEN) is valid and may read it",
            }),
            (408 | 425 | 429 | 500..=599, _) => {
                let wait = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
                return Failure::Again(unavailable(with("").message()), wait.map(Duration::from_secs));
            }
            _ => unavailable(with("").message()),
        })
    }

    /// Waits before another try.
    ///
    /// # Errors
    /// The failure's own when it stays so, or was met too often; `cancelled`.
    pub fn again(&self, tries: &mut Tries, brought: bool, failure: Failure) -> Result<()> {
        let (error, wait) = match failure {
            Failure::Never(error) => return Err(error),
            Failure::Again(error, wait) => (error, wait),
        };
        tries.all += 1;
        tries.fruitless = if brought { 0 } else { tries.fruitless + 1 };
        let wait =
            wait.unwrap_or_else(|| FIRST_WAIT * 2u32.saturating_pow(tries.fruitless.saturating_sub(1)));
        if tries.fruitless >= MOST_FRUITLESS || tries.all >= MOST_TRIES || wait > LONGEST_WAIT {
            return Err(error);
        }
        tracing::debug!("{}; trying again in {wait:?}", error.message());
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.cancel.check()?;
            std::thread::sleep(CANCEL_POLL.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// The flag that ends it.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(watch) = self.watch.take() {
            // It only waits and closes: it does not panic.
            let _ = watch.join();
        }
    }
}

/// How often something was tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    fruitless: u32,
    all: u32,
}

pub(super) fn cancelled() -> Error {
    Error::from(pajamas_plugin_api::PluginError::cancelled())
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new("hub-unavailable", message)
        .help("see whether this machine reaches the hub (HF_ENDPOINT names another one), and try again")
}

/// What no hub says.
pub(super) fn nonsense(what: &str) -> Error {
    Error::new("hub-unavailable", format!("the hub answers with {what}"))
        .help("see whether HF_ENDPOINT names a hub")
}

/// Whom an address belongs to: scheme, host and port.
fn origin(uri: &Uri) -> Option<(String, String)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, format!("{}:{port}", uri.host()?.to_ascii_lowercase())))
}

/// The address that a redirect leads to.
fn join(from: &Uri, location: &str) -> Option<String> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if location.starts_with("https://") || location.starts_with("http://") {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    // What has another scheme is no file of a hub.
    (!location.contains("://")).then(|| format!("{scheme}://{authority}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from: Uri = "https://hub.example:8443/org/name/resolve/c/a.bin".parse().unwrap();
        let to = |location| join(&from, location);
        assert_eq!(to("/x/y").as_deref(), Some("https://hub.example:8443/x/y"));
        assert_eq!(to("b.bin").as_deref(), Some("https://hub.example:8443/org/name/resolve/c/b.bin"));
        assert_eq!(to("//cdn.example/z").as_deref(), Some("https://cdn.example/z"));
        assert_eq!(to("http://cdn.example/z").as_deref(), Some("http://cdn.example/z"));
        assert_eq!(to("file:///etc/passwd"), None);
    }

    #[test]
    fn another_scheme_host_or_port_is_somebody_else() {
        let of = |text: &str| origin(&text.parse().unwrap()).unwrap();
        assert_eq!(of("https://Hub.example/a"), of("https://hub.example:443/b"));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://cdn.hub.example",
            "https://hub.example.org",
        ] {
            assert_ne!(of("https://hub.example"), of(other), "{other}");
        }
    }

    #[test]
    fn etags_are_compared_without_their_wrapping() {
        assert_eq!(["\"abc\"", "W/\"abc\"", "abc"].map(plain_etag), ["abc"; 3]);
    }
}
