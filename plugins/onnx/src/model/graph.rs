//! `ModelProto` and what it is made of, as far as it says something about inputs, outputs and memory.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek};

use pajamas_plugin_api::Dim;

use super::protobuf::{Content, Fault, Reader};
use super::{Declared, Kind};
use crate::element;

/// Graphs within graphs (`If`, `Loop`) nest at most this deep; more would be an attack on the stack.
const MAX_DEPTH: usize = 32;

/// The parts of a `ModelProto` that matter here.
pub(super) struct Model {
    pub(super) graph: Graph,
    pub(super) metadata: BTreeMap<String, String>,
}

/// The parts of a `GraphProto` that matter here.
#[derive(Default)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Declared>,
    pub(super) outputs: Vec<Declared>,
    /// The `value_info`: types and shapes of intermediate tensors, where the exporter wrote them.
    pub(super) values: Vec<Declared>,
    pub(super) initializers: HashSet<String>,
    pub(super) nodes: Vec<Node>,
}

/// Names of what a node takes and gives.
#[derive(Default)]
pub(super) struct Node {
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// A tensor whose data lies in another file.
pub(super) struct External {
    pub(super) tensor: String,
    pub(super) location: String,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Walks a model file once, from beginning to end.
pub(super) struct Parser<R> {
    reader: Reader<R>,
    bits: fn(i32) -> u64,
    /// Bytes of every tensor stored in the model, in the widths that `bits` says.
    pub(super) weights: u64,
    pub(super) external: Vec<External>,
    /// How often each operator occurs, inner graphs included.
    pub(super) operators: BTreeMap<String, usize>,
}

/// Calls `$visit` for every field of the message of `$length` bytes that is next in the stream.
macro_rules! fields {
    ($self:ident, $length:expr, { $($pattern:pat => $body:expr,)* }) => {{
        let end = $self.reader.position() + $length;
        while let Some(field) = $self.reader.field(end)? {
            match field {
                $($pattern => $body,)*
                (_, content) => $self.reader.skip(content)?,
            }
        }
    }};
}

impl<R: Read + Seek> Parser<R> {
    pub(super) fn new(source: R, length: u64, bits: fn(i32) -> u64) -> Self {
        Self {
            reader: Reader::new(source, length),
            bits,
            weights: 0,
            external: Vec::new(),
            operators: BTreeMap::new(),
        }
    }

    /// Reads the `ModelProto` that fills the whole file.
    pub(super) fn model(&mut self, length: u64) -> Result<Model, Fault> {
        let (mut graph, mut version, mut metadata) = (None, None, BTreeMap::new());
        fields!(self, length, {
            (1, Content::Varint(ir)) => version = Some(ir),
            (7, Content::Bytes(n)) => graph = Some(self.graph(n, 0)?),
            (14, Content::Bytes(n)) => {
                let (key, value) = self.entry(n)?;
                metadata.insert(key, value);
            },
        });
        let missing =
            |what: &str| Fault::Malformed { offset: length, what: format!("no {what} up to the end") };
        version.ok_or_else(|| missing("ir_version"))?;
        Ok(Model { graph: graph.ok_or_else(|| missing("graph"))?, metadata })
    }

    fn graph(&mut self, length: u64, depth: usize) -> Result<Graph, Fault> {
        if depth > MAX_DEPTH {
            return Err(self.malformed(format!("graphs nested more than {MAX_DEPTH} deep")));
        }
        let mut graph = Graph::default();
        fields!(self, length, {
            (1, Content::Bytes(n)) => {
                let node = self.node(n, depth)?;
                graph.nodes.push(node);
            },
            (5, Content::Bytes(n)) => {
                let name = self.tensor(n)?;
                graph.initializers.insert(name);
            },
            (11, Content::Bytes(n)) => graph.inputs.push(self.value(n)?),
            (12, Content::Bytes(n)) => graph.outputs.push(self.value(n)?),
            (13, Content::Bytes(n)) => graph.values.push(self.value(n)?),
            (15, Content::Bytes(n)) => {
                let name = self.sparse_tensor(n)?;
                graph.initializers.insert(name);
            },
        });
        Ok(graph)
    }

    fn node(&mut self, length: u64, depth: usize) -> Result<Node, Fault> {
        let mut node = Node::default();
        fields!(self, length, {
            (1, Content::Bytes(n)) => node.inputs.push(self.reader.text(n)?),
            (2, Content::Bytes(n)) => node.outputs.push(self.reader.text(n)?),
            (4, Content::Bytes(n)) => {
                let operator = self.reader.text(n)?;
                *self.operators.entry(operator).or_insert(0) += 1;
            },
            (5, Content::Bytes(n)) => self.attribute(n, depth)?,
        });
        Ok(node)
    }

    /// Constants are attributes that hold a tensor, bodies of `If` and `Loop` attributes that hold a graph.
    fn attribute(&mut self, length: u64, depth: usize) -> Result<(), Fault> {
        fields!(self, length, {
            (5 | 10, Content::Bytes(n)) => {
                self.tensor(n)?;
            },
            (6 | 11, Content::Bytes(n)) => {
                self.graph(n, depth + 1)?;
            },
        });
        Ok(())
    }

    /// Reads a `TensorProto`: counts its memory, checks that its data has the length its shape needs, and returns
    /// its name.
    fn tensor(&mut self, length: u64) -> Result<String, Fault> {
        let (mut name, mut kind, mut elements) = (String::new(), 0, Some(1u64));
        let (mut raw, mut outside, mut entries) = (None, false, BTreeMap::new());
        fields!(self, length, {
            (1, Content::Varint(dim)) => elements = times(elements, dim),
            (1, Content::Bytes(n)) => {
                let end = self.reader.position() + n;
                while self.reader.position() < end {
                    elements = times(elements, self.reader.varint(end)?);
                }
            },
            (2, Content::Varint(number)) => kind = element_type(number),
            (8, Content::Bytes(n)) => name = self.reader.text(n)?,
            (9, Content::Bytes(n)) => {
                raw = Some(n);
                self.reader.skip(Content::Bytes(n))?;
            },
            (13, Content::Bytes(n)) => {
                let (key, value) = self.entry(n)?;
                entries.insert(key, value);
            },
            (14, Content::Varint(location)) => outside = location == 1,
        });
        let size = |bits: u64| elements.and_then(|n| n.checked_mul(bits)).map(|n| n.div_ceil(8));
        let (Some(stored), Some(held)) = (size(element::bits(kind)), size((self.bits)(kind))) else {
            return Err(self.malformed(format!("an impossible shape of tensor `{name}`")));
        };
        if let Some(has) = raw.filter(|has| *has != stored && element::bits(kind) > 0 && !outside) {
            return Err(
                self.malformed(format!("tensor `{name}` with {has} bytes where its shape needs {stored}"))
            );
        }
        if outside {
            let number = |key: &str| entries.get(key).and_then(|v: &String| v.parse().ok());
            self.external.push(External {
                tensor: name.clone(),
                location: entries.get("location").cloned().unwrap_or_default(),
                offset: number("offset").unwrap_or(0),
                length: number("length").unwrap_or(stored),
            });
        }
        self.weights = self.weights.saturating_add(held);
        Ok(name)
    }

    /// Reads a `SparseTensorProto`; it is named by its values.
    fn sparse_tensor(&mut self, length: u64) -> Result<String, Fault> {
        let mut name = String::new();
        fields!(self, length, {
            (1, Content::Bytes(n)) => name = self.tensor(n)?,
            (2, Content::Bytes(n)) => {
                self.tensor(n)?;
            },
        });
        Ok(name)
    }

    /// Reads a `ValueInfoProto`.
    fn value(&mut self, length: u64) -> Result<Declared, Fault> {
        let mut value = Declared { name: String::new(), kind: Kind::Tensor(0), shape: None };
        fields!(self, length, {
            (1, Content::Bytes(n)) => value.name = self.reader.text(n)?,
            (2, Content::Bytes(n)) => (value.kind, value.shape) = self.value_type(n)?,
        });
        Ok(value)
    }

    /// Reads a `TypeProto`.
    fn value_type(&mut self, length: u64) -> Result<(Kind, Option<Vec<Dim>>), Fault> {
        let (mut kind, mut shape) = (Kind::Tensor(0), None);
        fields!(self, length, {
            (1, Content::Bytes(n)) => {
                let mut number = 0;
                fields!(self, n, {
                    (1, Content::Varint(v)) => number = element_type(v),
                    (2, Content::Bytes(n)) => shape = Some(self.shape(n)?),
                });
                kind = Kind::Tensor(number);
            },
            (field @ (4 | 5 | 8 | 9), content) => {
                kind = Kind::Other(match field {
                    4 => "sequence",
                    5 => "map",
                    8 => "sparse tensor",
                    _ => "optional",
                });
                self.reader.skip(content)?;
            },
        });
        Ok((kind, shape))
    }

    /// Reads a `TensorShapeProto`.
    fn shape(&mut self, length: u64) -> Result<Vec<Dim>, Fault> {
        let mut shape = Vec::new();
        fields!(self, length, {
            (1, Content::Bytes(n)) => {
                let mut dim = Dim::Dynamic(super::UNNAMED.to_owned());
                fields!(self, n, {
                    // Some exporters write -1 or 0 for "not known"; a fixed dimension of 0 would hold nothing.
                    (1, Content::Varint(v)) => if v.cast_signed() > 0 { dim = Dim::Fixed(v) },
                    (2, Content::Bytes(n)) => {
                        let name = self.reader.text(n)?;
                        if !name.is_empty() { dim = Dim::Dynamic(name) }
                    },
                });
                shape.push(dim);
            },
        });
        Ok(shape)
    }

    /// Reads a `StringStringEntryProto`.
    fn entry(&mut self, length: u64) -> Result<(String, String), Fault> {
        let (mut key, mut value) = (String::new(), String::new());
        fields!(self, length, {
            (1, Content::Bytes(n)) => key = self.reader.text(n)?,
            (2, Content::Bytes(n)) => value = self.reader.text(n)?,
        });
        Ok((key, value))
    }

    fn malformed(&self, what: String) -> Fault {
        Fault::Malformed { offset: self.reader.position(), what }
    }
}

/// The product with one more dimension; `None` once it is no possible number of elements.
fn times(elements: Option<u64>, dim: u64) -> Option<u64> {
    // A negative dimension arrives as a number beyond i64.
    elements.filter(|_| i64::try_from(dim).is_ok()).and_then(|n| n.checked_mul(dim))
}

/// Element types are small; what does not fit is simply no known type.
fn element_type(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}
