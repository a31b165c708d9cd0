//! What a caller asks for.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a caller asks a model for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Continue a text.
    Generate,
    /// Answer in a conversation.
    Chat,
    /// Turn a text into a vector.
    Embed,
    /// Order texts by how well they answer a question.
    Rerank,
    /// Find objects in a picture.
    Detect,
    /// Say what a picture shows.
    Classify,
    /// Find the outlines of objects in a picture.
    Segment,
    /// Turn speech into text.
    Transcribe,
    /// Turn text into speech.
    Speak,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 9] = [
        Self::Generate,
        Self::Chat,
        Self::Embed,
        Self::Rerank,
        Self::Detect,
        Self::Classify,
        Self::Segment,
        Self::Transcribe,
        Self::Speak,
    ];

    /// The word used in configuration, manifests and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Chat => "chat",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Detect => "detect",
            Self::Classify => "classify",
            Self::Segment => "segment",
            Self::Transcribe => "transcribe",
            Self::Speak => "speak",
        }
    }

    /// Whether a model made for this task is also made for `other`: who converses writes.
    pub fn is_akin(self, other: Self) -> bool {
        let writes = |task| matches!(task, Self::Generate | Self::Chat);
        self == other || (writes(self) && writes(other))
    }

    /// Whether a model made for this task also carries out `other`: every text model with one session does what its
    /// backend offers, so that a chat model continues text and embeds it too; and who finds outlines finds objects.
    pub fn covers(self, other: Self) -> bool {
        let text = |task| matches!(task, Self::Generate | Self::Chat | Self::Embed | Self::Rerank);
        self == other || (text(self) && text(other)) || (self, other) == (Self::Segment, Self::Detect)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_how_it_is_written() {
        for task in Task::ALL {
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
        }
    }

    #[test]
    fn text_models_cover_each_others_tasks_and_vision_models_do_not() {
        assert!(Task::Chat.covers(Task::Generate) && Task::Generate.covers(Task::Embed));
        assert!(Task::Detect.covers(Task::Detect) && !Task::Detect.covers(Task::Classify));
        assert!(Task::Segment.covers(Task::Detect) && !Task::Detect.covers(Task::Segment));
    }
}
