//! `pajamas chat`: talk with a model.

use std::io::IsTerminal;

use clap::Args;
use rustyline::error::ReadlineError;

use super::generate::{answer, standard_input};
use super::session::Session;
use super::text_options::TextOptions;
use super::{Global, output};
use crate::chat::Message;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::pipeline::{Input, Request};

const HELP: &str = "\
/help           this text
/system TEXT    set the system prompt and begin anew; without TEXT, remove it
/reset          forget the conversation
/history        print the conversation
/quit           leave (Ctrl-D does, too); Ctrl-C stops an answer";

#[derive(Debug, Args)]
pub struct Chat {
    /// Ask this and leave; without it, a conversation begins (or standard input is asked, when it is no terminal)
    message: Option<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// The system prompt
    #[arg(short, long)]
    system: Option<String>,
    #[command(flatten)]
    text: TextOptions,
}

impl Chat {
    pub fn run(self, global: &Global) -> Result<()> {
        let once = match &self.message {
            Some(message) => Some(message.clone()),
            None if !std::io::stdin().is_terminal() => Some(standard_input()?.trim().to_owned()),
            None => None,
        };
        let mut conversation = Conversation::new(self.system.clone());
        match once {
            Some(message) => {
                let session = Session::start(global)?;
                self.say(&session, &mut conversation, message)
            }
            None => self.converse(global, conversation),
        }
    }

    fn say(&self, session: &Session, conversation: &mut Conversation, message: String) -> Result<()> {
        conversation.0.push(Message::new("user", message));
        let request = Request {
            task: Task::Chat,
            model: self.model.clone(),
            input: Input::Conversation(conversation.0.clone().into()),
            params: self.text.params(),
        };
        let text = answer(session, request)?;
        conversation.0.push(Message::new("assistant", text));
        Ok(())
    }

    fn converse(&self, global: &Global, mut conversation: Conversation) -> Result<()> {
        let mut session = Session::start(global)?;
        let terminal = |e: ReadlineError| Error::new("io", format!("the terminal: {e}"));
        let mut editor = rustyline::DefaultEditor::new().map_err(terminal)?;
        eprintln!("Talk with the model; /help lists commands, /quit leaves.");
        loop {
            let line = match editor.readline("> ") {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(terminal(e)),
            };
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            // History is a comfort: losing a line of it is no reason to stop.
            let _ = editor.add_history_entry(line);
            match line.strip_prefix('/') {
                Some(command) => {
                    if conversation.command(command)? {
                        return Ok(());
                    }
                }
                None => {
                    let turns = conversation.0.len();
                    if let Err(error) = self.say(&session, &mut conversation, line.to_owned()) {
                        if error.code() == output::CLOSED {
                            return Err(error);
                        }
                        // The question that failed is not part of the conversation.
                        conversation.0.truncate(turns);
                        output::report(&error, global.json);
                        session.renew_cancel();
                    }
                }
            }
        }
    }
}

struct Conversation(Vec<Message>);

impl Conversation {
    fn new(system: Option<String>) -> Self {
        Self(system.map(|s| Message::new("system", s)).into_iter().collect())
    }

    /// Carries out a slash command; `true` ends the conversation.
    fn command(&mut self, command: &str) -> Result<bool> {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "help" | "?" => output::line(HELP)?,
            "quit" | "exit" | "q" => return Ok(true),
            "reset" | "clear" => {
                let system = self.0.first().filter(|m| m.role == "system").map(|m| m.content.clone());
                *self = Self::new(system);
                output::line("(forgotten)")?;
            }
            "system" => {
                *self = Self::new(Some(rest.trim().to_owned()).filter(|s| !s.is_empty()));
                output::line("(a new conversation)")?;
            }
            "history" => {
                for message in &self.0 {
                    output::line(&format!("{}: {}", message.role, message.content))?;
                }
            }
            other => output::line(&format!("there is no command /{other}; /help lists them"))?,
        }
        Ok(false)
    }
}
