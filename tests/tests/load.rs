//! Many clients at once: every request is answered once, by its own answer or a refusal, and nothing stays behind.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first trouble")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use pajamas_journeys::product::{House, Server, chat_entry};
use serde_json::{Value, json};

/// Connections that are kept and do nothing; fewer where the system allows fewer files.
const IDLE: usize = 1000;
/// Files that the rest of the test and of the server open.
const OTHERS: usize = 400;
/// Clients that ask, one request after the other.
const ACTIVE: usize = 200;
const REQUESTS: usize = 5;
/// Waves of them. The first ones fill what is kept: threads, buffers, the allocator's own.
const WAVES: usize = 4;
/// What may be between the memory after two waves: pages that the allocator has not given back yet.
const SLACK: u64 = 24 << 20;

/// Sends a request over a kept connection and reads its answer.
fn ask(connection: &mut BufReader<TcpStream>, head: &str, body: &str) -> (u16, String) {
    let request =
        format!("{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        assert!(connection.read_line(&mut line).unwrap() > 0, "the connection ended");
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        status = status.or_else(|| line.split(' ').nth(1)?.parse().ok());
        length = line.strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer).unwrap();
    (status.unwrap(), String::from_utf8(answer).unwrap())
}

fn connect(server: &Server) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(server.authority()).unwrap())
}

/// Asks so often, each time for something else; gives how many were answered and how many refused.
fn client(server: &Server, wave: usize, number: usize) -> (u64, u64) {
    let mut connection = connect(server);
    let (mut answered, mut refused) = (0, 0);
    for request in 0..REQUESTS {
        let prompt = format!("Wave {wave}, client {number}, request {request}:");
        let body =
            json!({ "model": "chat", "prompt": prompt, "max_tokens": 2, "ignore_eos": true, "echo": true });
        let (status, answer) = ask(&mut connection, "POST /v1/completions", &body.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        match status {
            200 => {
                let text = answer["choices"][0]["text"].as_str().unwrap();
                assert!(text.starts_with(&prompt), "{prompt} was answered with {text}");
                answered += 1;
            }
            429 => {
                assert_eq!(answer["error"]["code"], "queue-full");
                refused += 1;
            }
            other => panic!("{other}: {answer}"),
        }
    }
    (answered, refused)
}

fn counted(server: &Server, line: &str) -> u64 {
    let metrics = server.get("/metrics").unwrap().body;
    let found = metrics.lines().filter_map(|l| l.strip_prefix(line)?.trim().parse::<f64>().ok());
    found.sum::<f64>() as u64
}

/// How many connections may idle beside the active ones.
fn idle_allowed() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let (soft, _) = open_files(&limits);
    let idle = IDLE.min((soft as usize).saturating_sub(OTHERS));
    if idle < IDLE {
        eprintln!("{idle} idle connections instead of {IDLE}: `ulimit -n` is {soft}");
    }
    idle
}

/// The limit on open files of a process, as the system now has it: soft and hard.
fn open_files(limits: &str) -> (u64, u64) {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn as_many_connections_as_are_configured_have_file_handles() {
    let toml = "[server]\nmax_connections = 900\n";
    let server = Server::start(House::new(toml).unwrap()).unwrap();
    let (soft, hard) = open_files(&server.limits().unwrap());
    assert!(soft > hard.min(900), "{soft} of {hard}");
    let toml = "[server]\nmax_connections = 3000\n";
    let server = Server::start(House::new(toml).unwrap()).unwrap();
    let (soft, hard) = open_files(&server.limits().unwrap());
    assert!(soft > hard.saturating_sub(1).min(3000), "{soft} of {hard}");
}

#[test]
fn many_clients_are_each_answered_once_and_leave_nothing_behind() {
    let toml = format!("[server]\nclient_timeout = \"10m\"\nmax_queue = 64\n{}", chat_entry("chat"));
    let server = Server::start(House::new(&toml).unwrap()).unwrap();
    let mut idle: Vec<_> = (0..idle_allowed()).map(|_| connect(&server)).collect();
    for connection in &mut idle {
        assert_eq!(ask(connection, "GET /healthz", "").0, 200);
    }
    let (mut answered, mut refused, mut resident) = (0, 0, Vec::new());
    for wave in 0..WAVES {
        let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let server = &server;
            let clients: Vec<_> =
                (0..ACTIVE).map(|number| scope.spawn(move || client(server, wave, number))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        answered += counts.iter().map(|c| c.0).sum::<u64>();
        refused += counts.iter().map(|c| c.1).sum::<u64>();
        resident.push(server.resident().unwrap());
    }
    // A queue of 64 and 200 who ask: some must have been refused, and none twice or not at all.
    assert_eq!(answered + refused, (WAVES * ACTIVE * REQUESTS) as u64);
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    assert_eq!(counted(&server, "pajamas_refusals_total{code=\"queue-full\"}"), refused);
    assert_eq!(
        counted(&server, "pajamas_tokens_total{model=\"chat\",direction=\"completion\"}"),
        2 * answered
    );
    let (second, last) = (resident[1], resident[WAVES - 1]);
    assert!(last < second + SLACK, "{second} bytes after the second wave, {last} after the last");
    // Those that were idle all the time are still served.
    for connection in &mut idle {
        assert_eq!(ask(connection, "GET /healthz", "").0, 200);
    }
}
