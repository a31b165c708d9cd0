//! `pajamas route`: why a request goes to a model, and what other rules would have done.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Global, output};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::host::{Host, rules_of, sensed};
use crate::router::{
    Ask, Considered, Decision, Intent, Prediction, Record, Rules, Similar, Snapshot, Step, decide,
};
use crate::server;

#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Decide on a request under this configuration, and say why
    Explain(Explain),
    /// Decide again on what a server decided, under this configuration, and say what is different
    Replay(Replay),
}

#[derive(Debug, Args)]
pub struct Explain {
    /// A decision of `/admin/routes` or all of them, the `ask` of one, or a body of /v1/chat/completions; `-` is standard
    /// input
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// Of several decisions the one of the request with this id [default: the latest]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What to choose from: a `snapshot` of `/admin/routes` [default: the decision's own, or this machine with nothing
    /// loaded]
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    snapshot: Option<PathBuf>,
    /// What to choose from: what the server at this address would choose from now; a key is taken from `PAJAMAS_KEY`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Decide so often, and say how long a decision takes
    #[arg(long, value_name = "N")]
    repeat: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// What `/admin/routes` answered, or decisions, one a line
    log: PathBuf,
}

impl RouteCommand {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Explain(explain) => explain.run(global),
            Self::Replay(replay) => replay.run(global),
        }
    }
}

impl Explain {
    fn run(self, global: &Global) -> Result<()> {
        let config = global.config()?.with_ways();
        let rules = rules_of(&config)?;
        let mut asked = self.asked()?;
        let mut machine = Machine { config, host: None };
        asked.ask = machine.sensed(&rules, asked.ask)?;
        let snapshot = match (&self.snapshot, &self.url, asked.snapshot) {
            (Some(file), ..) => part(&read(file)?, "snapshot", file)?,
            (None, Some(url), _) => part(&from_server(url)?, "snapshot", Path::new(url))?,
            (None, None, Some(snapshot)) => snapshot,
            (None, None, None) => machine.host()?.snapshot_now(),
        };
        let decision = decide(&rules, &asked.ask, &snapshot);
        let times = self.repeat.map(|times| measure(times, || drop(decide(&rules, &asked.ask, &snapshot))));
        let again = asked.record.as_ref().map(|(_, recorded)| *recorded == decision);
        let same_rules = asked.record.as_ref().map(|(recorded, _)| recorded == rules.fingerprint());
        if global.json {
            return output::json_line(&json!({
                "decision": decision.told(),
                "as_recorded": again,
                "same_rules": same_rules,
                "microseconds": times,
            }));
        }
        output::line(in_words(&decision, &asked.ask).trim_end())?;
        match (again, same_rules) {
            (Some(true), _) => output::line("as recorded")?,
            (Some(false), Some(false)) => output::line("not as recorded: the rules are others now")?,
            (Some(false), _) => output::line("not as recorded, although the rules are the same")?,
            (None, _) => {}
        }
        match times {
            Some([p50, p99]) => {
                output::line(&format!("a decision takes {p50:.1} µs, 99 of 100 at most {p99:.1} µs"))
            }
            None => Ok(()),
        }
    }

    fn asked(&self) -> Result<Asked> {
        let value = read(&self.request)?;
        let value = match value.get("decisions").and_then(Value::as_array) {
            None => value,
            Some(records) => {
                let wanted = |record: &&Value| self.id.as_ref().is_none_or(|id| record["request"] == **id);
                records.iter().rev().find(wanted).cloned().ok_or_else(|| {
                    let id = self.id.as_deref().unwrap_or("any request");
                    Error::new("invalid-input", format!("{}: no decision on {id}", self.request.display()))
                })?
            }
        };
        if value.get("decision").is_some() {
            let Record { ask, snapshot, rules, decision, .. } = parsed(value, &self.request)?;
            return Ok(Asked { ask, snapshot: Some(snapshot), record: Some((rules, decision)) });
        }
        let ask = match value {
            body if body.get("messages").is_some() => {
                crate::host::ask_of(&server::chat_request(body.to_string().as_bytes())?)
            }
            ask => parsed(ask, &self.request)?,
        };
        Ok(Asked { ask, snapshot: None, record: None })
    }
}

/// This machine under a configuration, started when it is needed.
struct Machine {
    config: Config,
    host: Option<Host>,
}

impl Machine {
    fn host(&mut self) -> Result<&Host> {
        let host = match self.host.take() {
            Some(host) => host,
            None => Host::start(self.config.clone())?,
        };
        Ok(self.host.insert(host))
    }

    /// The ask with what its text wants, and how near it is to examples, where a rule asks for that and nobody has found out.
    fn sensed(&mut self, rules: &Rules, ask: Ask) -> Result<Ask> {
        let by_stages = rules.sensed_by_stages().is_some() && rules.wants_intent(&ask);
        let ask = if by_stages { self.host()?.sensed(ask) } else { sensed(rules, ask) };
        if rules.wants_similar(&ask).is_none() { Ok(ask) } else { Ok(self.host()?.compared(ask)) }
    }
}

/// What a file asks.
struct Asked {
    ask: Ask,
    snapshot: Option<Snapshot>,
    /// Which rules decided before, and what.
    record: Option<(String, Decision)>,
}

/// Microseconds that half and 99 of 100 take at most.
fn measure(times: u32, work: impl Fn()) -> [f64; 2] {
    let mut took: Vec<Duration> = (0..times.max(1))
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    [50, 99].map(|percent| took[(took.len() - 1) * percent / 100].as_nanos() as f64 / 1e3)
}

/// A decision for people: rules, models, outcome.
fn in_words(decision: &Decision, ask: &Ask) -> String {
    let mut lines = Vec::new();
    if let Some(Intent { label, share, took, code, .. }) = &decision.intent {
        let took = took.map(|us| format!(", found out in {us} µs")).unwrap_or_default();
        lines.push(match code {
            Some(code) => format!("intent not known, since its stages failed [{code}]"),
            None => format!("intent {label}, {:.1} % sure{took}", f64::from(*share) / 10.0),
        });
    }
    for Step { rule, failed, similar } in decision.steps.iter() {
        let near = similar.map(nearness).unwrap_or_default();
        lines.push(match failed {
            Some(condition) => format!("rule {rule:<24} does not apply: {condition}{near}"),
            None => format!("rule {rule:<24} applies{near}"),
        });
    }
    for one in &decision.candidates {
        let Considered { model, step, rejected, breaks, predicted, .. } = one;
        let reasons = one.reasons();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", and ")) };
        let mark = match (rejected, decision.chosen.as_deref() == Some(&**model)) {
            (_, true) => "taken",
            (Some(_), _) => "cannot",
            (None, _) if breaks.is_empty() => "could",
            _ => "against the policies",
        };
        lines.push(format!("step {} {model:<24} {:<40} {mark}{reasons}", step + 1, times(predicted)));
    }
    lines.push(match (&decision.chosen, &decision.refused) {
        (Some(model), _) => format!("{model}: {}", decision.reason(ask.task)),
        (None, Some(fault)) => format!("refused: {} [{}]", fault.message, fault.code),
        (None, None) => String::new(),
    });
    lines.join("\n")
}

/// How near a request is to a rule's examples, or why that is not known.
fn nearness(similar: &Similar) -> String {
    let Similar { model, score, nearest, code, cut, took } = similar;
    let (Some(score), Some(nearest)) = (score, nearest) else {
        return format!(", since `{model}` could not be asked [{}]", code.as_deref().unwrap_or("internal"));
    };
    let score = f64::from(*score) / 1000.0;
    let cut = if *cut { ", its beginning alone" } else { "" };
    let took = took.map(|us| format!(", found out in {us} µs")).unwrap_or_default();
    format!(", {score:.3} near example {} by `{model}`{cut}{took}", nearest + 1)
}

fn times(predicted: &Prediction) -> String {
    let Prediction { queue, load, first_token, decode, total, guessed, .. } = predicted;
    let ms = |us: &u64| us / 1000;
    let sign = if *guessed { "?" } else { "" };
    let (total, queue, load) = (ms(total), ms(queue), ms(load));
    format!("{total} ms{sign} ({queue} + {load} + {} + {})", ms(first_token), ms(decode))
}

impl Replay {
    fn run(self, global: &Global) -> Result<()> {
        let config = global.config()?.with_ways();
        let rules = rules_of(&config)?;
        let mut machine = Machine { config, host: None };
        let mut sum = Sum::default();
        for record in records(&self.log)? {
            let record: Record = parsed(record, &self.log)?;
            let ask = machine.sensed(&rules, record.ask.clone())?;
            let new = decide(&rules, &ask, &record.snapshot);
            sum.unsure += u32::from(rules.unsure(&ask, &new.steps));
            sum.add(&record, &new);
        }
        sum.tell(global)
    }
}

/// What is different, over all decisions.
#[derive(Default)]
struct Sum {
    decisions: u32,
    /// Those that are in everything as they were: times, reasons and all.
    same: u32,
    unsure: u32,
    moved: BTreeMap<(String, String), u32>,
    requests: Vec<Value>,
    old: Side,
    new: Side,
}

/// What one set of rules did.
#[derive(Default)]
struct Side {
    predicted: Vec<u64>,
    degraded: u32,
    refused: u32,
    evicting: u32,
}

impl Side {
    fn add(&mut self, decision: &Decision) {
        self.predicted.extend(decision.predicted.map(|predicted| predicted.total));
        self.degraded += u32::from(decision.degraded.is_some());
        self.refused += u32::from(decision.chosen.is_none());
        let chosen = decision.candidates.iter().find(|one| Some(&*one.model) == decision.chosen.as_deref());
        // A score is above the prediction where others have to give way.
        self.evicting += u32::from(chosen.is_some_and(|one| one.score > one.predicted.total));
    }

    fn json(&mut self) -> Value {
        self.predicted.sort_unstable();
        let at = |percent: usize| {
            let last = self.predicted.len().checked_sub(1)?;
            self.predicted.get(last * percent / 100).map(|us| *us as f64 / 1e3)
        };
        json!({
            "predicted_ms": { "p50": at(50), "p95": at(95) },
            "degraded": self.degraded,
            "refused": self.refused,
            "evicting": self.evicting,
        })
    }
}

impl Sum {
    fn add(&mut self, record: &Record, new: &Decision) {
        self.decisions += 1;
        self.same += u32::from(record.decision == *new);
        self.old.add(&record.decision);
        self.new.add(new);
        let place = |decision: &Decision| decision.chosen.clone().unwrap_or_else(|| "refused".to_owned());
        let (from, to) = (place(&record.decision), place(new));
        if from != to {
            let reason = new.chosen.as_ref().map(|_| new.reason(record.ask.task));
            self.requests
                .push(json!({ "request": record.request, "from": from, "to": to, "reason": reason }));
            *self.moved.entry((from, to)).or_default() += 1;
        }
    }

    fn tell(mut self, global: &Global) -> Result<()> {
        let (old, new) = (self.old.json(), self.new.json());
        if global.json {
            return output::json_line(&json!({
                "decisions": self.decisions,
                "same": self.same,
                "moved": self.requests,
                "unsure": self.unsure,
                "old": old,
                "new": new,
            }));
        }
        let moved = self.requests.len();
        output::line(&format!(
            "{} decisions, {moved} go elsewhere now, {} are the same in everything",
            self.decisions, self.same
        ))?;
        for ((from, to), count) in &self.moved {
            output::line(&format!("{count:>6}  {from} > {to}"))?;
        }
        let row = |name: &str, pointer: &str| {
            let cell = |side: &Value| match side.pointer(pointer) {
                Some(Value::Number(number)) => number.to_string(),
                _ => "-".to_owned(),
            };
            output::line(&format!("{name:<24} {:>12} {:>12}", cell(&old), cell(&new)))
        };
        output::line(&format!("{:<24} {:>12} {:>12}", "", "before", "now"))?;
        row("predicted p50, ms", "/predicted_ms/p50")?;
        row("predicted p95, ms", "/predicted_ms/p95")?;
        row("degraded", "/degraded")?;
        row("refused", "/refused")?;
        row("others give way", "/evicting")?;
        if self.unsure > 0 {
            output::line(&format!(
                "{} decisions may be others: rules look for words that were not recorded (routing.record = \"text\" does)",
                self.unsure
            ))?;
        }
        Ok(())
    }
}

/// The decisions in a file: one object with all of them, a list, or one a line.
fn records(file: &Path) -> Result<Vec<Value>> {
    let text = text(file)?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Array(records)) => return Ok(records),
        Ok(mut whole) if whole.get("decisions").is_some_and(Value::is_array) => {
            return parsed(whole["decisions"].take(), file);
        }
        _ => {}
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| unreadable(file, &format!("line {}: {error}", index + 1)))
    });
    records.collect()
}

fn text(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|e| Error::io("standard input", &e))?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(|e| Error::io(file, &e))
}

fn read(file: &Path) -> Result<Value> {
    serde_json::from_str(&text(file)?).map_err(|error| unreadable(file, &error.to_string()))
}

/// A part of an object, or the whole when it has no such part.
fn part<T: DeserializeOwned>(value: &Value, name: &str, file: &Path) -> Result<T> {
    parsed(value.get(name).unwrap_or(value).clone(), file)
}

fn parsed<T: DeserializeOwned>(value: Value, file: &Path) -> Result<T> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| unreadable(file, &format!("`{}`: {}", error.path(), error.inner())))
}

fn unreadable(file: &Path, words: &str) -> Error {
    Error::new("invalid-input", format!("{}: {words}", file.display()))
        .help("give what `/admin/routes` answered, one of its decisions, an `ask`, or a body of /v1/chat/completions")
}

/// The most bytes that are read of a server's answer.
const LARGEST_ANSWER: u64 = 64 << 20;
/// The longest that a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What `/admin/routes` of a server answers, over HTTP without TLS: an answer to HTTP 1.0 comes in one piece.
fn from_server(url: &str) -> Result<Value> {
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let Some(authority) = authority.filter(|a| !a.is_empty() && !a.contains(['/', '@', '\r', '\n', ' ']))
    else {
        return Err(Error::new(
            "invalid-option",
            format!("--url {url}: write it like http://127.0.0.1:8797"),
        ));
    };
    let failed = |error: &std::io::Error| Error::new("io", format!("{url}: {error}"));
    let mut stream = TcpStream::connect(authority).map_err(|e| failed(&e))?;
    stream.set_read_timeout(Some(SILENCE)).map_err(|e| failed(&e))?;
    let key = std::env::var("PAJAMAS_KEY").ok().filter(|key| !key.contains(['\r', '\n']));
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    write!(stream, "GET /admin/routes HTTP/1.0\r\nhost: {authority}\r\n{key}\r\n").map_err(|e| failed(&e))?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER).read_to_string(&mut answer).map_err(|e| failed(&e))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        let told: Value = serde_json::from_str(body).unwrap_or_default();
        let code = told["error"]["code"].as_str().unwrap_or("io").to_owned();
        return Err(Error::new(code, format!("{url}: the server answered {status}"))
            .help("a server with keys wants one with the scope `admin` in PAJAMAS_KEY"));
    }
    serde_json::from_str(body).map_err(|error| Error::new("invalid-input", format!("{url}: {error}")))
}
