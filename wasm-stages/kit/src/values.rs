//! Values by name.

use crate::{Audio, Detection, Error, Image, Kind, Label, NamedValue, Result, Segment, Tensor, Value};

/// The values that a run takes or leaves, by name.
#[derive(Debug, Clone, Default)]
pub struct Values(Vec<NamedValue>);

macro_rules! takers {
    ($($method:ident($optional:ident) $variant:ident -> $t:ty),* $(,)?) => {$(
        #[doc = concat!("Takes the input `name`, which must be there and of the kind ", stringify!($method), ".")]
        pub fn $method(&mut self, name: &str) -> Result<$t> {
            self.$optional(name)?.ok_or_else(|| self.missing(name, Kind::$variant))
        }

        #[doc = concat!("Takes the input `name` if it is there; it must be of the kind ", stringify!($method), ".")]
        pub fn $optional(&mut self, name: &str) -> Result<Option<$t>> {
            match self.take(name) {
                None => Ok(None),
                Some(Value::$variant(value)) => Ok(Some(value)),
                Some(other) => Err(wrong_kind(name, Kind::$variant, &other)),
            }
        }
    )*};
}

impl Values {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push(NamedValue { name: name.into(), value: value.into() });
        self
    }

    /// Takes a value of any kind.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|v| v.name == name)?;
        Some(self.0.swap_remove(at).value)
    }

    takers! {
        tensor(tensor_opt) Tensor -> Tensor,
        image(image_opt) Image -> Image,
        audio(audio_opt) Audio -> Audio,
        text(text_opt) Text -> String,
        tokens(tokens_opt) Tokens -> Vec<u32>,
        detections(detections_opt) Detections -> Vec<Detection>,
        labels(labels_opt) Labels -> Vec<Label>,
        segments(segments_opt) Segments -> Vec<Segment>,
        bytes(bytes_opt) Bytes -> Vec<u8>,
    }

    fn missing(&self, name: &str, kind: Kind) -> Error {
        let there: Vec<_> = self.0.iter().map(|v| v.name.as_str()).collect();
        let there = if there.is_empty() { "nothing else".into() } else { there.join(", ") };
        Error::invalid_input(format!("the input `{name}` ({}) is missing; there is {there}", kind.name()))
    }
}

fn wrong_kind(name: &str, wanted: Kind, found: &Value) -> Error {
    let (wanted, found) = (wanted.name(), found.kind().name());
    Error::invalid_input(format!("the input `{name}` is of the kind {found}, not {wanted}"))
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
}

macro_rules! into_value {
    ($($variant:ident($t:ty)),* $(,)?) => {$(
        impl From<$t> for Value {
            fn from(value: $t) -> Self {
                Value::$variant(value)
            }
        }
    )*};
}

into_value!(
    Tensor(Tensor),
    Image(Image),
    Audio(Audio),
    Text(String),
    Tokens(Vec<u32>),
    Detections(Vec<Detection>),
    Labels(Vec<Label>),
    Segments(Vec<Segment>),
    Bytes(Vec<u8>),
);

impl From<Vec<NamedValue>> for Values {
    fn from(values: Vec<NamedValue>) -> Self {
        Self(values)
    }
}

impl From<Values> for Vec<NamedValue> {
    fn from(values: Values) -> Self {
        values.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_input_and_one_of_another_kind_are_named() {
        let mut values = Values::new().with("text", "hello".to_owned());
        let missing = values.image("image").unwrap_err();
        assert_eq!(missing.code, "invalid-input");
        assert_eq!(missing.message, "the input `image` (image) is missing; there is text");
        let wrong = values.image("text").unwrap_err();
        assert_eq!(wrong.message, "the input `text` is of the kind text, not image");
        assert_eq!(values.image_opt("picture"), Ok(None));
    }
}
