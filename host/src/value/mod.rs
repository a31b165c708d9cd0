//! What flows between stages and models. No I/O: types, their shapes, and how to look at them.

mod elements;
mod tensor;

use serde::{Deserialize, Serialize};

pub use elements::Elements;
pub use tensor::{Tensor, TensorData};

/// What flows between stages and models.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Numbers with a shape.
    Tensor(Tensor),
    /// An upright picture.
    Image(Image),
    /// Sound.
    Audio(Audio),
    /// Text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
    /// Objects found in a picture.
    Detections(Vec<Detection>),
    /// Classes with their probabilities, the likeliest first.
    Labels(Vec<Label>),
    /// Stretches of speech or text.
    Segments(Vec<Segment>),
    /// Anything that is not decoded yet.
    Bytes(Vec<u8>),
}

/// The kind of a [`Value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants of Value say it")]
pub enum Kind {
    Tensor,
    Image,
    Audio,
    Text,
    Tokens,
    Detections,
    Labels,
    Segments,
    Bytes,
}

impl Kind {
    /// The word used in configuration and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Tensor => "tensor",
            Kind::Image => "image",
            Kind::Audio => "audio",
            Kind::Text => "text",
            Kind::Tokens => "tokens",
            Kind::Detections => "detections",
            Kind::Labels => "labels",
            Kind::Segments => "segments",
            Kind::Bytes => "bytes",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Value {
    /// The value's kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Value::Tensor(_) => Kind::Tensor,
            Value::Image(_) => Kind::Image,
            Value::Audio(_) => Kind::Audio,
            Value::Text(_) => Kind::Text,
            Value::Tokens(_) => Kind::Tokens,
            Value::Detections(_) => Kind::Detections,
            Value::Labels(_) => Kind::Labels,
            Value::Segments(_) => Kind::Segments,
            Value::Bytes(_) => Kind::Bytes,
        }
    }

    /// Approximate bytes of memory that the value's content takes: what limits count.
    pub fn byte_size(&self) -> usize {
        match self {
            Value::Tensor(t) => t.bytes().len(),
            Value::Image(i) => i.pixels.len(),
            Value::Audio(a) => a.samples.len() * 4,
            Value::Text(t) => t.len(),
            Value::Tokens(t) => t.len() * 4,
            Value::Detections(d) => d.len() * size_of::<Detection>(),
            Value::Labels(l) => l.len() * size_of::<Label>(),
            Value::Segments(s) => s.iter().map(|s| size_of::<Segment>() + s.text.len()).sum(),
            Value::Bytes(b) => b.len(),
        }
    }
}

/// An upright picture: 8-bit sRGB, rows from the top, channels interleaved (1 grey, 3 RGB, 4 RGBA).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1, 3 or 4.
    pub channels: u8,
    /// `width * height * channels` bytes.
    pub pixels: Vec<u8>,
}

/// Sound: channels interleaved, samples in -1..=1.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Frames per second.
    pub sample_rate: u32,
    /// Samples per frame.
    pub channels: u16,
    /// The samples.
    pub samples: Vec<f32>,
}

/// An object found in a picture, in pixels of the upright picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom.
    pub bbox: [f32; 4],
    /// Confidence in 0..=1.
    pub score: f32,
    /// Index of the class.
    pub class_id: u32,
    /// The class's name, when a labels stage gave it one.
    pub label: Option<String>,
}

/// A class with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Index of the class.
    pub class_id: u32,
    /// Its probability in 0..=1.
    pub score: f32,
    /// Its name, when a labels stage gave it one.
    pub label: Option<String>,
}

/// A stretch of speech or text.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where it begins, in seconds.
    pub start: f32,
    /// Where it ends, in seconds.
    pub end: f32,
    /// What was said.
    pub text: String,
}

/// Values by name, in the order in which they were put: what a pipeline works on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(Vec<(String, Value)>);

impl Values {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value, replacing one of the same name.
    pub fn put(&mut self, name: impl Into<String>, value: Value) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Looks at a value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Takes a value out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(at).1)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// The names in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(n, _)| n.as_str()).collect()
    }

    /// Approximate bytes of all of it.
    pub fn byte_size(&self) -> usize {
        self.0.iter().map(|(_, v)| v.byte_size()).sum()
    }
}

impl IntoIterator for Values {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(String, Value)> for Values {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(iter: I) -> Self {
        let mut values = Self::new();
        for (name, value) in iter {
            values.put(name, value);
        }
        values
    }
}
