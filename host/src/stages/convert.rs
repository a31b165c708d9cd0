//! The host's values and the component's: borrowed on the way in, moved on the way out.

use super::bindings::pajamas::stage::values as wit;
use crate::value::{Audio, Detection, Image, Kind, Label, Segment, Tensor, TensorData, Value};

/// Rows that have to be built before they can be borrowed: those with text in them.
pub enum Rows<'v> {
    Detections(Vec<wit::DetectionParam<'v>>),
    Labels(Vec<wit::LabelParam<'v>>),
    Segments(Vec<wit::SegmentParam<'v>>),
    None,
}

impl<'v> Rows<'v> {
    /// The rows of a value, if it has such.
    pub fn of(value: &'v Value) -> Self {
        match value {
            Value::Detections(rows) => Rows::Detections(rows.iter().map(detection).collect()),
            Value::Labels(rows) => Rows::Labels(rows.iter().map(label).collect()),
            Value::Segments(rows) => Rows::Segments(rows.iter().map(segment).collect()),
            _ => Rows::None,
        }
    }
}

fn detection(from: &Detection) -> wit::DetectionParam<'_> {
    let [x1, y1, x2, y2] = from.bbox;
    let Detection { score, class_id, .. } = *from;
    wit::DetectionParam { x1, y1, x2, y2, score, class_id, label: from.label.as_deref() }
}

fn label(from: &Label) -> wit::LabelParam<'_> {
    wit::LabelParam { class_id: from.class_id, score: from.score, label: from.label.as_deref() }
}

fn segment(from: &Segment) -> wit::SegmentParam<'_> {
    wit::SegmentParam { start: from.start, end: from.end, text: &from.text }
}

/// A value as the component takes it. `rows` are [`Rows::of`] the same value.
pub fn lower<'v>(name: &'v str, value: &'v Value, rows: &'v Rows<'v>) -> wit::NamedValueParam<'v> {
    let value = match (value, rows) {
        (_, Rows::Detections(rows)) => wit::ValueParam::Detections(rows),
        (_, Rows::Labels(rows)) => wit::ValueParam::Labels(rows),
        (_, Rows::Segments(rows)) => wit::ValueParam::Segments(rows),
        (Value::Tensor(tensor), _) => wit::ValueParam::Tensor(wit::TensorParam {
            shape: tensor.shape(),
            data: lower_data(tensor.data()),
        }),
        (Value::Image(Image { width, height, channels, pixels }), _) => {
            let (width, height, channels) = (*width, *height, *channels);
            wit::ValueParam::Image(wit::ImageParam { width, height, channels, pixels })
        }
        (Value::Audio(Audio { sample_rate, channels, samples }), _) => {
            let (sample_rate, channels) = (*sample_rate, *channels);
            wit::ValueParam::Audio(wit::AudioParam { sample_rate, channels, samples })
        }
        (Value::Text(text), _) => wit::ValueParam::Text(text),
        (Value::Tokens(tokens), _) => wit::ValueParam::Tokens(tokens),
        (Value::Bytes(bytes), _) => wit::ValueParam::Bytes(bytes),
        // Values with rows are taken above; without them they are empty.
        (Value::Detections(_), _) => wit::ValueParam::Detections(&[]),
        (Value::Labels(_), _) => wit::ValueParam::Labels(&[]),
        (Value::Segments(_), _) => wit::ValueParam::Segments(&[]),
    };
    wit::NamedValueParam { name, value }
}

fn lower_data(data: &TensorData) -> wit::TensorDataParam<'_> {
    match data {
        TensorData::F32(v) => wit::TensorDataParam::F32(v),
        TensorData::F16(v) => wit::TensorDataParam::F16(v),
        TensorData::F64(v) => wit::TensorDataParam::F64(v),
        TensorData::I8(v) => wit::TensorDataParam::I8(v),
        TensorData::U8(v) => wit::TensorDataParam::U8(v),
        TensorData::I16(v) => wit::TensorDataParam::I16(v),
        TensorData::U16(v) => wit::TensorDataParam::U16(v),
        TensorData::I32(v) => wit::TensorDataParam::I32(v),
        TensorData::U32(v) => wit::TensorDataParam::U32(v),
        TensorData::I64(v) => wit::TensorDataParam::I64(v),
        TensorData::U64(v) => wit::TensorDataParam::U64(v),
        TensorData::Bool(v) => wit::TensorDataParam::Boolean(v),
        TensorData::Bf16(v) => wit::TensorDataParam::Bf16(v),
    }
}

/// A value that a component left, or why it is none: sizes and shapes are believed only after they were checked.
pub fn lift(value: wit::ValueResult) -> Result<Value, String> {
    Ok(match value {
        wit::ValueResult::Tensor(wit::TensorResult { shape, data }) => {
            Value::Tensor(Tensor::new(shape, lift_data(data)?).map_err(|error| error.message)?)
        }
        wit::ValueResult::Image(wit::ImageResult { width, height, channels, pixels }) => {
            let bytes = u128::from(width) * u128::from(height) * u128::from(channels);
            if !matches!(channels, 1 | 3 | 4) || bytes != pixels.len() as u128 {
                let held = pixels.len();
                return Err(format!("an image of {width} x {height} x {channels} cannot hold {held} bytes"));
            }
            Value::Image(Image { width, height, channels, pixels })
        }
        wit::ValueResult::Audio(wit::AudioResult { sample_rate, channels, samples }) => {
            if sample_rate == 0 || channels == 0 || samples.len() % usize::from(channels) != 0 {
                return Err(format!(
                    "sound of {channels} channels at {sample_rate} Hz with {} samples",
                    samples.len()
                ));
            }
            Value::Audio(Audio { sample_rate, channels, samples })
        }
        wit::ValueResult::Text(text) => Value::Text(text),
        wit::ValueResult::Tokens(tokens) => Value::Tokens(tokens),
        wit::ValueResult::Detections(rows) => Value::Detections(
            rows.into_iter()
                .map(|d| Detection {
                    bbox: [d.x1, d.y1, d.x2, d.y2],
                    score: d.score,
                    class_id: d.class_id,
                    label: d.label,
                })
                .collect(),
        ),
        wit::ValueResult::Labels(rows) => Value::Labels(
            rows.into_iter()
                .map(|l| Label { class_id: l.class_id, score: l.score, label: l.label })
                .collect(),
        ),
        wit::ValueResult::Segments(rows) => Value::Segments(
            rows.into_iter().map(|s| Segment { start: s.start, end: s.end, text: s.text }).collect(),
        ),
        wit::ValueResult::Bytes(bytes) => Value::Bytes(bytes),
    })
}

fn lift_data(data: wit::TensorDataResult) -> Result<TensorData, String> {
    Ok(match data {
        wit::TensorDataResult::F32(v) => TensorData::F32(v.into()),
        wit::TensorDataResult::F16(v) => TensorData::F16(v.into()),
        wit::TensorDataResult::F64(v) => TensorData::F64(v.into()),
        wit::TensorDataResult::I8(v) => TensorData::I8(v.into()),
        wit::TensorDataResult::U8(v) => TensorData::U8(v.into()),
        wit::TensorDataResult::I16(v) => TensorData::I16(v.into()),
        wit::TensorDataResult::U16(v) => TensorData::U16(v.into()),
        wit::TensorDataResult::I32(v) => TensorData::I32(v.into()),
        wit::TensorDataResult::U32(v) => TensorData::U32(v.into()),
        wit::TensorDataResult::I64(v) => TensorData::I64(v.into()),
        wit::TensorDataResult::U64(v) => TensorData::U64(v.into()),
        // Backends may take the bytes as they are: nothing but 0 and 1 is a boolean.
        wit::TensorDataResult::Boolean(v) if v.iter().any(|b| *b > 1) => {
            return Err("a boolean tensor holds bytes other than 0 and 1".into());
        }
        wit::TensorDataResult::Boolean(v) => TensorData::Bool(v.into()),
        wit::TensorDataResult::Bf16(v) => TensorData::Bf16(v.into()),
    })
}

/// A kind as the component names it.
pub fn kind(kind: wit::Kind) -> Kind {
    match kind {
        wit::Kind::Tensor => Kind::Tensor,
        wit::Kind::Image => Kind::Image,
        wit::Kind::Audio => Kind::Audio,
        wit::Kind::Text => Kind::Text,
        wit::Kind::Tokens => Kind::Tokens,
        wit::Kind::Detections => Kind::Detections,
        wit::Kind::Labels => Kind::Labels,
        wit::Kind::Segments => Kind::Segments,
        wit::Kind::Bytes => Kind::Bytes,
    }
}
