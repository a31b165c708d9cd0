//! Replacing operators that rten 0.27 computes wrongly.
//!
//! `ConvInteger` is right for pointwise and for depthwise kernels. Every other kernel goes through a path that pads
//! with 0 where the input's zero point belongs, and that mixes up the items of a batch: a quantized detector still
//! finds most of its boxes, with other scores. Such a node becomes the same sum in `f32`, which has neither fault:
//! `Cast(Conv(Cast(x) - x_zero, w - w_zero))`, the weights widened here and now. Sums up to 2^24 come out exact,
//! larger ones to within one part in 2^24.
//!
//! `Softmax` and `LogSoftmax` before opset 13 take all dimensions from `axis` (1 when not given) on as one; rten
//! knows only the later meaning, one dimension, the last when not given. Such a node gets the flattening spelt out.

use std::collections::{HashMap, HashSet};

use super::wire::{Content, fields, put_bytes, put_number};

// Element types, by their ONNX numbers.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;
const INT32: u64 = 6;

const CONV: &str = "ConvInteger";
const SOFTMAX: [&str; 2] = ["Softmax", "LogSoftmax"];

/// The first opset in which `Softmax` means what rten computes.
const SOFTMAX_OPSET: u64 = 13;

/// Whether a model with this operator may need [`repair`].
pub(super) fn concerns(operator: &str) -> bool {
    operator == CONV || SOFTMAX.contains(&operator)
}

/// The model with its nodes replaced, or `None` when all that it has are computed rightly. `count` is the number of
/// nodes in it that [`concerns`] names, bodies of `If` and `Loop` included. The bytes are known to be a well-formed
/// model.
///
/// # Errors
/// In words, for a node that cannot be replaced: its weights are computed, or it may lie in such a body.
pub(super) fn repair(model: &[u8], count: usize) -> Result<Option<Vec<u8>>, String> {
    let (mut graph, mut opset) = (None, 1);
    for field in fields(model) {
        match (field.number, field.content) {
            (7, Content::Bytes(bytes)) => graph = Some(Graph::read(bytes)),
            (8, Content::Bytes(import)) => opset = default_opset(import).unwrap_or(opset),
            _ => {}
        }
    }
    let Some(graph) = graph else { return Ok(None) };
    let wrong: Vec<bool> = graph.nodes.iter().map(|node| node.is_wrong(&graph.constants, opset)).collect();
    let seen = graph.nodes.iter().filter(|node| concerns(node.operator)).count();
    if seen < count && (opset < SOFTMAX_OPSET || wrong.contains(&true)) {
        return Err("it may compute a ConvInteger or Softmax inside an If or a Loop wrongly".to_owned());
    }
    if !wrong.contains(&true) {
        return Ok(None);
    }
    let repaired = graph.repaired(&wrong)?;
    let mut out = Vec::with_capacity(model.len() + repaired.len());
    for field in fields(model) {
        match field.number {
            7 => put_bytes(&mut out, 7, &repaired),
            _ => out.extend_from_slice(field.raw),
        }
    }
    Ok(Some(out))
}

/// The version of an `OperatorSetIdProto`, when it is that of ONNX's own operators.
fn default_opset(import: &[u8]) -> Option<u64> {
    let (mut own, mut version) = (true, None);
    for field in fields(import) {
        match (field.number, field.content) {
            (1, Content::Bytes(domain)) => own = matches!(domain, b"" | b"ai.onnx"),
            (2, Content::Varint(v)) => version = Some(v),
            _ => {}
        }
    }
    version.filter(|_| own)
}

/// A `GraphProto`.
struct Graph<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node<'a>>,
    constants: HashMap<&'a [u8], Tensor<'a>>,
}

impl<'a> Graph<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let (mut nodes, mut constants) = (Vec::new(), HashMap::new());
        for field in fields(bytes) {
            match (field.number, field.content) {
                (1, Content::Bytes(node)) => nodes.push(Node::read(node)),
                (5, Content::Bytes(tensor)) => {
                    let tensor = Tensor::read(tensor);
                    constants.insert(tensor.name, tensor);
                }
                _ => {}
            }
        }
        Self { bytes, nodes, constants }
    }

    /// The graph with the wrong nodes replaced, and without the weights that nobody needs any more.
    fn repaired(&self, wrong: &[bool]) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(self.bytes.len());
        let mut widened = HashSet::new();
        let mut nodes = self.nodes.iter().zip(wrong);
        for field in fields(self.bytes) {
            match field.number {
                1 => match nodes.next() {
                    Some((node, true)) => node.replace(&self.constants, &mut widened, &mut out)?,
                    _ => out.extend_from_slice(field.raw),
                },
                5 => {}
                _ => out.extend_from_slice(field.raw),
            }
        }
        let kept = self.nodes.iter().zip(wrong).filter(|(_, wrong)| !**wrong).map(|(node, _)| node);
        let needed: HashSet<&[u8]> = kept.flat_map(|node| node.inputs.iter().copied()).collect();
        let replaced = self.nodes.iter().zip(wrong).filter(|(_, wrong)| **wrong).map(|(node, _)| node);
        let weights: HashSet<&[u8]> = replaced.filter_map(|node| node.input(1)).collect();
        // A body of If or Loop may use a tensor without naming it as an input: then all stay.
        let captures = self.nodes.iter().any(|node| node.has_body);
        for field in fields(self.bytes) {
            if let (5, Content::Bytes(tensor)) = (field.number, field.content) {
                let name = Tensor::read(tensor).name;
                if captures || needed.contains(name) || !weights.contains(name) {
                    out.extend_from_slice(field.raw);
                }
            }
        }
        Ok(out)
    }
}

/// A `NodeProto`.
struct Node<'a> {
    operator: &'a str,
    inputs: Vec<&'a [u8]>,
    output: &'a [u8],
    attributes: Vec<&'a [u8]>,
    has_body: bool,
}

impl<'a> Node<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut node =
            Self { operator: "", inputs: Vec::new(), output: &[], attributes: Vec::new(), has_body: false };
        for field in fields(bytes) {
            match (field.number, field.content) {
                (1, Content::Bytes(name)) => node.inputs.push(name),
                (2, Content::Bytes(name)) => node.output = name,
                (4, Content::Bytes(name)) => node.operator = std::str::from_utf8(name).unwrap_or(""),
                (5, Content::Bytes(attribute)) => {
                    node.has_body |= fields(attribute).any(|f| matches!(f.number, 6 | 11));
                    node.attributes.push(attribute);
                }
                _ => {}
            }
        }
        node
    }

    /// An input by its position; `None` where it is left out.
    fn input(&self, index: usize) -> Option<&'a [u8]> {
        self.inputs.get(index).copied().filter(|name| !name.is_empty())
    }

    /// The numbers of an integer attribute, single or list.
    fn numbers(&self, name: &str) -> Vec<u64> {
        let is_it = |attribute: &&&[u8]| {
            fields(attribute).any(|f| f.number == 1 && f.content == Content::Bytes(name.as_bytes()))
        };
        let attribute = self.attributes.iter().find(is_it);
        attribute.map_or_else(Vec::new, |a| {
            fields(a).filter(|f| matches!(f.number, 3 | 8)).flat_map(|f| f.numbers()).collect()
        })
    }

    /// Whether rten computes this node wrongly: a `ConvInteger` that is neither pointwise nor depthwise, or an old
    /// `Softmax` over more than the last dimension.
    fn is_wrong(&self, constants: &HashMap<&[u8], Tensor<'_>>, opset: u64) -> bool {
        if SOFTMAX.contains(&self.operator) {
            return opset < SOFTMAX_OPSET && self.numbers("axis") != [(-1i64).cast_unsigned()];
        }
        if self.operator != CONV {
            return false;
        }
        let Some(weights) = self.input(1).and_then(|name| constants.get(name)) else { return true };
        let [out_channels, in_channels, kernel @ ..] = weights.dims.as_slice() else { return true };
        let group = self.numbers("group").first().copied().unwrap_or(1);
        let all = |name: &str, value: u64| self.numbers(name).iter().all(|n| *n == value);
        let pointwise = kernel.iter().all(|n| *n == 1)
            && group == 1
            && ["strides", "dilations"].iter().all(|name| all(name, 1))
            && all("pads", 0);
        let depthwise = *in_channels == 1 && *out_channels == group;
        !pointwise && !depthwise
    }

    /// Writes the nodes, and the weights if they are not in `widened`, that stand for this one.
    fn replace(
        &self,
        constants: &HashMap<&[u8], Tensor<'_>>,
        widened: &mut HashSet<Vec<u8>>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if SOFTMAX.contains(&self.operator) {
            return self.flatten(out);
        }
        let shown = String::from_utf8_lossy(self.output);
        let refuse = |what: &str| {
            format!("it computes {CONV} wrongly, and {what} of the one that gives `{shown}` are computed")
        };
        let (Some(x), Some(w)) = (self.input(0), self.input(1)) else { return Err(refuse("some inputs")) };
        let weights = constants.get(w).ok_or_else(|| refuse("the weights"))?;
        let zero = match self.input(3) {
            None => vec![0],
            Some(name) => {
                constants.get(name).and_then(Tensor::values).ok_or_else(|| refuse("the zero points"))?
            }
        };
        let name = |part: &str| self.name(part);
        let wide = [w, b"/rten/", self.input(3).unwrap_or_default()].concat();
        if widened.insert(wide.clone()) {
            let tensor = weights.widened(&wide, &zero).ok_or_else(|| refuse("the weights"))?;
            put_bytes(out, 5, &tensor);
        }
        let mut input = name("x");
        put_node(out, b"Cast", &[x], &input, &[&to(FLOAT)]);
        if let Some(x_zero) = self.input(2) {
            put_node(out, b"Cast", &[x_zero], &name("x_zero"), &[&to(FLOAT)]);
            put_node(out, b"Sub", &[&input, &name("x_zero")], &name("centred"), &[]);
            input = name("centred");
        }
        put_node(out, b"Conv", &[&input, &wide], &name("sum"), &self.attributes);
        put_node(out, b"Cast", &[&name("sum")], self.output, &[&to(INT32)]);
        Ok(())
    }

    /// Writes the nodes that stand for an old `Softmax`: over a matrix, and back to the shape.
    fn flatten(&self, out: &mut Vec<u8>) -> Result<(), String> {
        let x = self.input(0).ok_or_else(|| format!("a {} has no input", self.operator))?;
        let axis = self.numbers("axis").first().copied().unwrap_or(1);
        let last = (-1i64).cast_unsigned();
        put_node(out, b"Shape", &[x], &self.name("shape"), &[]);
        put_node(out, b"Flatten", &[x], &self.name("matrix"), &[&int("axis", axis)]);
        let operator = self.operator.as_bytes();
        put_node(out, operator, &[&self.name("matrix")], &self.name("rows"), &[&int("axis", last)]);
        put_node(out, b"Reshape", &[&self.name("rows"), &self.name("shape")], self.output, &[]);
        Ok(())
    }

    /// A name for an intermediate tensor of this node's replacement.
    fn name(&self, part: &str) -> Vec<u8> {
        [self.output, b"/rten/", part.as_bytes()].concat()
    }
}

/// A `TensorProto` of an initializer.
struct Tensor<'a> {
    name: &'a [u8],
    kind: u64,
    dims: Vec<u64>,
    raw: Option<&'a [u8]>,
    typed: Vec<u64>,
}

impl<'a> Tensor<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut tensor = Self { name: &[], kind: 0, dims: Vec::new(), raw: None, typed: Vec::new() };
        for field in fields(bytes) {
            match (field.number, field.content) {
                (1, _) => tensor.dims.extend(field.numbers()),
                (2, Content::Varint(kind)) => tensor.kind = kind,
                (5, _) => tensor.typed.extend(field.numbers()),
                (8, Content::Bytes(name)) => tensor.name = name,
                (9, Content::Bytes(raw)) => tensor.raw = Some(raw),
                _ => {}
            }
        }
        tensor
    }

    /// The numbers of an 8-bit tensor; `None` when it is of another type, or lies in another file.
    fn values(&self) -> Option<Vec<i16>> {
        let bytes: Vec<u8> = match self.raw {
            Some(raw) => raw.to_vec(),
            // Stored as 32-bit numbers, of which the lowest byte is the value.
            None => self.typed.iter().map(|n| n.to_le_bytes()[0]).collect(),
        };
        let complete = bytes.len() as u64 == self.dims.iter().product::<u64>();
        match self.kind {
            UINT8 if complete => Some(bytes.into_iter().map(i16::from).collect()),
            INT8 if complete => Some(bytes.into_iter().map(|b| i16::from(b.cast_signed())).collect()),
            _ => None,
        }
    }

    /// The tensor less its zero point (one, or one per output channel), as a `TensorProto` of `f32`.
    fn widened(&self, name: &[u8], zero: &[i16]) -> Option<Vec<u8>> {
        let values = self.values()?;
        let per_channel = values.len().checked_div(zero.len())?;
        let wide: Vec<u8> = values
            .chunks(per_channel.max(1))
            .zip(zero)
            .flat_map(|(channel, zero)| channel.iter().map(|v| f32::from(*v - *zero)))
            .flat_map(f32::to_le_bytes)
            .collect();
        let mut out = Vec::with_capacity(wide.len() + 64);
        self.dims.iter().for_each(|dim| put_number(&mut out, 1, *dim));
        put_number(&mut out, 2, FLOAT);
        put_bytes(&mut out, 8, name);
        put_bytes(&mut out, 9, &wide);
        Some(out)
    }
}

/// Writes a node as a field of a graph.
fn put_node(out: &mut Vec<u8>, operator: &[u8], inputs: &[&[u8]], output: &[u8], attributes: &[&[u8]]) {
    let mut node = Vec::new();
    inputs.iter().for_each(|name| put_bytes(&mut node, 1, name));
    put_bytes(&mut node, 2, output);
    put_bytes(&mut node, 4, operator);
    attributes.iter().for_each(|attribute| put_bytes(&mut node, 5, attribute));
    put_bytes(out, 1, &node);
}

/// The attribute `to` of a `Cast`.
fn to(element: u64) -> Vec<u8> {
    int("to", element)
}

/// An integer attribute.
fn int(name: &str, value: u64) -> Vec<u8> {
    let mut attribute = Vec::new();
    put_bytes(&mut attribute, 1, name.as_bytes());
    put_number(&mut attribute, 3, value);
    // Its type: INT.
    put_number(&mut attribute, 20, 2);
    attribute
}
