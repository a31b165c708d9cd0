//! What is compared: who chooses the model of a request, and who gives way when memory runs short.

use pajamas::config::{Config, LoadOptions};
use pajamas::router::Rules;

use crate::keeper::{Keeper, fleet, least_recently_used};
use crate::machine::MODELS;

/// A column of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each request goes to the model it asks for; whoever was not used for longest gives way.
    Baseline,
    /// The same choice; the host's fleet says who gives way.
    Fleet,
    /// The host's router chooses, with a budget of so many seconds; the host's fleet says who gives way.
    Router(u32),
}

/// The ladders that an operator would write for these models. A name leads to its first step, or also to those after it.
const LADDERS: [(&str, &[&str]); 5] = [
    ("chat", &["chat-8b-q8", "chat-8b-q4", "chat-3b-q8"]),
    ("quick", &["chat-3b-q8", "chat-1b-q8"]),
    ("code", &["code-7b-q8", "code-7b-q4"]),
    ("maths", &["maths-7b-q4", "chat-8b-q8", "chat-8b-q4"]),
    ("translate", &["translate-7b-q4", "chat-8b-q8", "chat-8b-q4"]),
];

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Fleet, Self::Router(8)];

    /// What its column is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "least recently used, fixed choice",
            Self::Fleet => "our fleet, fixed choice",
            Self::Router(_) => "our fleet, our router",
        }
    }

    /// Who decides what is in so much memory.
    pub fn keeper(self, memory: u64) -> Box<dyn Keeper> {
        match self {
            Self::Baseline => least_recently_used(memory),
            Self::Fleet | Self::Router(_) => fleet(memory),
        }
    }

    /// The names and policies, as they stand in `pajamas.toml`.
    pub fn toml(self) -> String {
        let written = |(name, steps): &(&str, &[&str])| match self {
            Self::Baseline | Self::Fleet => format!("{name} = {:?}\n", steps[0]),
            Self::Router(_) => format!("[[ladders]]\nid = {name:?}\nsteps = {steps:?}\n"),
        };
        let names: String = LADDERS.iter().map(written).collect();
        match self {
            Self::Baseline | Self::Fleet => format!("[aliases]\n{names}"),
            Self::Router(budget) => {
                format!("[routing]\nlatency_budget = \"{budget}s\"\naffinity = \"session\"\n{names}")
            }
        }
    }

    /// The rules of that configuration.
    ///
    /// # Errors
    /// What is wrong with it, or that it cannot be written to a folder of its own.
    pub fn rules(self) -> Result<Rules, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        // The configuration has to name a file that is there; nothing opens it.
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).map_err(|error| error.to_string())
        };
        let mut toml = self.toml();
        for model in MODELS {
            let task = if model.id.starts_with("embed") { "embed" } else { "chat" };
            toml += &format!("[[models]]\nid = {:?}\npath = \"m.gguf\"\ntask = {task:?}\n", model.id);
        }
        write("m.gguf", "")?;
        write("pajamas.toml", &toml)?;
        let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
        let config = Config::load(&options).map_err(|problems| problems.to_string())?;
        Rules::new(&config).map_err(|error| error.to_string())
    }
}
