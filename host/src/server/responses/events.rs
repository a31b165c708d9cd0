//! A response as events.

use pajamas_plugin_api::{FinishReason, GenerateSummary};
use serde_json::{Value, json};

use super::answer::{Answer, Item, Kind, part};
use crate::chat::Part;
use crate::error::Error;
use crate::pipeline::Route;
use crate::server::error;
use crate::server::sse::{self, Line};
use crate::server::stream::Piece;

/// An answer in pieces.
pub struct Events {
    answer: Answer,
    sequence: u64,
}

impl Events {
    pub fn new(answer: Answer) -> Self {
        Self { answer, sequence: 0 }
    }

    fn line(&mut self, name: &'static str, mut data: Value) -> Line {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Line::named(name, data)
    }

    /// An event about the last item, with more of it.
    fn about(&mut self, name: &'static str, more: &[(&str, Value)]) -> Line {
        let index = self.answer.items.len().saturating_sub(1);
        let mut data = json!({ "output_index": index });
        if let Some(item) = self.answer.items.last() {
            data["item_id"] = json!(item.id);
            if !matches!(item.kind, Kind::Call(..)) {
                data["content_index"] = json!(0);
            }
        }
        more.iter().for_each(|(key, value)| data[*key] = value.clone());
        self.line(name, data)
    }

    fn item(&mut self, name: &'static str, status: &str) -> Line {
        let index = self.answer.items.len().saturating_sub(1);
        let item = self.answer.items.last().map(|item| item.object(status));
        self.line(name, json!({ "output_index": index, "item": item }))
    }

    fn open(&mut self, lines: &mut Vec<Line>, item: Item) {
        self.end_item(lines, "completed");
        let message = item.kind == Kind::Message;
        self.answer.items.push(item);
        lines.push(self.item("response.output_item.added", "in_progress"));
        if message {
            lines.push(self.about("response.content_part.added", &[("part", part(""))]));
        }
    }

    fn end_item(&mut self, lines: &mut Vec<Line>, status: &str) {
        let Some(item) = self.answer.items.last() else { return };
        let (text, kind) = (json!(item.text), item.kind.clone());
        match kind {
            Kind::Message => {
                let part = part(&item.text);
                let done = [("text", text), ("logprobs", json!([]))];
                lines.push(self.about("response.output_text.done", &done));
                lines.push(self.about("response.content_part.done", &[("part", part)]));
            }
            Kind::Reasoning => lines.push(self.about("response.reasoning_text.done", &[("text", text)])),
            Kind::Call(name, _) => {
                let done = [("arguments", text), ("name", json!(name))];
                lines.push(self.about("response.function_call_arguments.done", &done));
            }
        }
        lines.push(self.item("response.output_item.done", status));
    }

    fn part(&mut self, lines: &mut Vec<Line>, part: &Part) {
        let (text, event) = match part {
            Part::Content(text) => (text, "response.output_text.delta"),
            Part::Reasoning(text) => (text, "response.reasoning_text.delta"),
            Part::Call { name, .. } => return self.open(lines, Item::call(name)),
            Part::Arguments { text, .. } => (text, "response.function_call_arguments.delta"),
        };
        let kind = match part {
            Part::Content(_) => Some(Kind::Message),
            Part::Reasoning(_) => Some(Kind::Reasoning),
            _ => None,
        };
        if let Some(kind) = kind
            && self.answer.items.last().is_none_or(|item| item.kind != kind)
        {
            self.open(lines, Item::new(kind));
        }
        if let Some(item) = self.answer.items.last_mut() {
            item.text.push_str(text);
        }
        let mut more = vec![("delta", json!(text))];
        if matches!(part, Part::Content(_)) {
            more.push(("logprobs", json!([])));
        }
        lines.push(self.about(event, &more));
    }
}

impl sse::Protocol for Events {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.answer.model.clone_from(&route.model);
        let response = json!({ "response": self.answer.object("in_progress", json!([])) });
        vec![self.line("response.created", response.clone()), self.line("response.in_progress", response)]
    }

    fn piece(&mut self, _: usize, _: &Piece) -> Vec<Line> {
        Vec::new()
    }

    fn parts(&mut self, _: usize, parts: &[Part]) -> Vec<Line> {
        let mut lines = Vec::new();
        parts.iter().for_each(|part| self.part(&mut lines, part));
        lines
    }

    fn end(&mut self, _: usize, summary: &GenerateSummary) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.answer.items.is_empty() {
            self.open(&mut lines, Item::new(Kind::Message));
        }
        let (status, last) = match summary.finish_reason {
            FinishReason::Length => ("incomplete", "response.incomplete"),
            _ => ("completed", "response.completed"),
        };
        self.end_item(&mut lines, status);
        let whole = self.answer.whole(summary);
        lines.push(self.line(last, json!({ "response": whole })));
        lines
    }

    fn fail(&mut self, refused: &Error) -> Vec<Line> {
        let said = error::body(refused)["error"].clone();
        let mut response = self.answer.object("failed", json!([]));
        response["error"] = json!({ "code": refused.code(), "message": said["message"] });
        vec![self.line("response.failed", json!({ "response": response }))]
    }
}
