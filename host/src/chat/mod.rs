//! Conversations: what they are made of, how a model's template writes them, and how to read what the model answers.

mod call;
mod conversation;
mod dialect;
mod learn;
pub mod native;
mod reader;
mod schema;
mod syntax;
mod template;

pub use conversation::{Call, Conversation, Message, Tool, ToolChoice};
pub use dialect::{Answer, begin};
pub use reader::{Part, Reader};
pub use template::render;
