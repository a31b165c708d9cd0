//! What wrote the trace. No operator's day was at hand: this one is made up, with what days are said to have. More by day
//! than by night, bursts, conversations that go on, a few names that many ask for and many that few do, and sizes with a
//! long tail. Nothing in it was chosen by how the policies do on it.

use std::fmt::Write as _;

use crate::chance::Chance;
use crate::trace::{LENGTH, Request};

/// The seed of the trace in the repository.
pub const SEED: u64 = 6;
/// Conversations that begin on that day.
pub const CONVERSATIONS: u64 = 2_400;

/// What begins in each hour, in thousandths of what begins on the day.
const HOURS: [u64; 24] =
    [12, 9, 7, 6, 6, 9, 16, 30, 52, 68, 74, 70, 56, 62, 72, 74, 68, 60, 52, 48, 46, 42, 36, 25];
/// How often each kind begins beside the others.
const KINDS: [(u64, Kind); 12] = [
    (330, Kind::chat("chat", "app", 70)),
    (150, Kind::chat("code", "team", 65)),
    (90, Kind::chat("quick", "app", 40)),
    (60, Kind::chat("translate", "app", 25)),
    (45, Kind::chat("maths", "team", 40)),
    (25, Kind::long("chat", "team")),
    (190, Kind::vectors("app")),
    // Who names a model gets it, whatever that takes.
    (40, Kind::chat("chat-8b-q8", "team", 60)),
    (25, Kind::chat("code-7b-q4", "team", 60)),
    (20, Kind::chat("chat-3b-q8", "app", 40)),
    (15, Kind::chat("legal-8b-q4", "team", 30)),
    (10, Kind::chat("chat-8b-q4", "team", 40)),
];
/// Bursts of a day, and the requests of each.
const BURSTS: u64 = 16;
const BURST: (u64, u64) = (12, 30);
/// Milliseconds in which a burst comes.
const BURST_LENGTH: u64 = 60_000;
/// How often a prompt's first part has 32 tokens and more, 64 and more, and so on.
const PROMPTS: [u64; 7] = [14, 22, 24, 18, 12, 7, 3];
/// The same of answers, from 16 on.
const ANSWERS: [u64; 6] = [14, 20, 24, 24, 14, 4];
/// The longest that models take.
const LONGEST: u32 = 7_500;

/// A kind of conversation.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    key: &'static str,
    /// How many of a hundred turns are followed by another.
    goes_on: u64,
    /// How often the first prompt is doubled beyond its usual size.
    longer: u32,
    vectors: bool,
}

impl Kind {
    const fn chat(name: &'static str, key: &'static str, goes_on: u64) -> Self {
        Self { name, key, goes_on, longer: 0, vectors: false }
    }

    /// One long text, about which something is asked once.
    const fn long(name: &'static str, key: &'static str) -> Self {
        Self { longer: 3, ..Self::chat(name, key, 0) }
    }

    const fn vectors(key: &'static str) -> Self {
        Self { vectors: true, ..Self::chat("embed-300m", key, 0) }
    }
}

/// The requests of a day on which about so many conversations begin, in the order in which they come.
pub fn day(seed: u64, conversations: u64) -> Vec<Request> {
    let mut chance = Chance::new(seed);
    let mut all = Vec::new();
    let mut session = 0;
    for (hour, share) in (0..).zip(HOURS) {
        for _ in 0..conversations * share / 1000 {
            session += 1;
            let at = (hour * 3600 + chance.below(3600)) * 1000 + chance.below(1000);
            let (_, kind) = KINDS[chance.weighted(&KINDS.map(|(weight, _)| weight))];
            converse(&mut chance, &mut all, session, at, kind);
        }
    }
    for _ in 0..BURSTS * conversations / CONVERSATIONS {
        let begins = chance.below(LENGTH - BURST_LENGTH);
        let kinds =
            [Kind::chat("chat", "batch", 0), Kind::chat("translate", "batch", 0), Kind::vectors("batch")];
        let kind = kinds[chance.weighted(&[2, 1, 2])];
        for _ in 0..BURST.0 + chance.below(BURST.1 - BURST.0) {
            session += 1;
            let at = begins + chance.below(BURST_LENGTH);
            converse(&mut chance, &mut all, session, at, kind);
        }
    }
    all.sort_by_key(|request| (request.at, request.session));
    all
}

fn converse(chance: &mut Chance, all: &mut Vec<Request>, session: u32, mut at: u64, kind: Kind) {
    let batch = kind.key == "batch";
    let timeout = match (batch, chance.below(3)) {
        (false, 0) => 60,
        (false, 1) => 120,
        _ => 0,
    };
    let mut prompt = chance.size(32 << kind.longer, &PROMPTS);
    while at < LENGTH {
        let answer = if kind.vectors { 0 } else { chance.size(16, &ANSWERS) };
        all.push(Request {
            at,
            session,
            key: kind.key.to_owned(),
            name: kind.name.to_owned(),
            prompt: prompt.min(LONGEST),
            answer,
            priority: if batch { -10 } else { 0 },
            timeout,
        });
        if prompt >= LONGEST || !chance.percent(kind.goes_on) {
            break;
        }
        // The answer is read, and the next turn written.
        at += u64::from(answer) * 40 + u64::from(chance.size(5_000, &[4, 4, 2, 1]));
        prompt = prompt + answer + chance.size(16, &[4, 4, 2, 1]);
    }
}

/// The file of a day.
pub fn file(day: &[Request]) -> String {
    let mut file = String::from(
        "# A day of requests to one host. It is made up: written by generate.rs beside this file, with the seed in it,\n\
         # since no operator's day was at hand. What is replayed is this file.\n\
         # Fields: milliseconds since midnight, conversation, key, name that is asked for, tokens of the prompt, tokens of\n\
         # the answer (0: vectors), priority, seconds that it may take (0: any).\n",
    );
    for request in day {
        // A string takes everything.
        let _ = writeln!(file, "{request}");
    }
    file
}
