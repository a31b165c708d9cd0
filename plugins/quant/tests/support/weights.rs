//! Random weights, and the files that they lie in.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use pajamas_quant::source::Dtype;
use serde_json::{Map, Value, json};

/// A tensor of a model.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[u64]) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec() }
    }

    /// Its bytes: of a generator that its name alone seeds.
    pub fn bytes(&self) -> Vec<u8> {
        let mut random = Random::new(&self.name);
        let count: u64 = self.shape.iter().product();
        let mut bytes = Vec::new();
        for _ in 0..count {
            match self.dtype {
                // Exponents of blocks, around that of one.
                Dtype::U8 if self.name.ends_with("_scales") => bytes.push(115 + random.byte() % 16),
                Dtype::U8 => bytes.push(random.byte()),
                Dtype::F16 => bytes.extend(f16::from_f32(random.weight()).to_le_bytes()),
                Dtype::BF16 => bytes.extend(bf16::from_f32(random.weight()).to_le_bytes()),
                Dtype::F32 => bytes.extend(random.weight().to_le_bytes()),
                other => panic!("no random {other}"),
            }
        }
        bytes
    }
}

struct Random(u64);

impl Random {
    fn new(name: &str) -> Self {
        // FNV-1a.
        Self(
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)),
        )
    }

    fn next(&mut self) -> u64 {
        // Knuth's MMIX generator, of which the upper bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 16) as u8
    }

    /// A weight between -0.25 and 0.25, with a large one now and then.
    fn weight(&mut self) -> f32 {
        let value = self.next() as f32 / (1u64 << 24) as f32 - 0.5;
        if self.next().is_multiple_of(257) { value * 7.0 } else { value * 0.5 }
    }
}

/// Writes tensors into files, with an index when there is more than one.
pub fn write(folder: &Path, tensors: &[Tensor], shards: usize) {
    let mut index = Map::new();
    let per = tensors.len().div_ceil(shards);
    for (i, part) in tensors.chunks(per).enumerate() {
        let file = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
        };
        index.extend(part.iter().map(|t| (t.name.clone(), Value::from(file.clone()))));
        fs::write(folder.join(&file), encoded(part)).unwrap();
    }
    if shards > 1 {
        let index = json!({"metadata": {}, "weight_map": index});
        fs::write(folder.join("model.safetensors.index.json"), super::pretty(&index)).unwrap();
    }
}

/// A safetensors file.
pub fn encoded(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.bytes());
        let entry =
            json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
