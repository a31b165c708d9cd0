//! How much memory the intermediate tensors of a graph take at once.

use std::collections::HashMap;

use pajamas_plugin_api::Dim;

use super::graph::Graph;
use super::{Declared, Kind};

/// Bytes of intermediate tensors at the fullest moment when the nodes run one after another in file order (which
/// ONNX demands to be a topological one) and each tensor is freed after its last use.
///
/// A lower bound where the file leaves shapes out; a dynamic dimension counts as 1. The graph's own inputs belong
/// to the caller and are not counted.
pub(super) fn peak(graph: &Graph, bits: fn(i32) -> u64) -> u64 {
    let sizes: HashMap<&str, u64> = graph
        .values
        .iter()
        .chain(&graph.outputs)
        .map(|value| (value.name.as_str(), bytes(value, bits)))
        .collect();
    let mut last_use = HashMap::new();
    for (step, node) in graph.nodes.iter().enumerate() {
        // What nobody takes is freed by the node that gave it.
        last_use.extend(node.outputs.iter().chain(&node.inputs).map(|name| (name.as_str(), step)));
    }
    last_use.extend(graph.outputs.iter().map(|output| (output.name.as_str(), usize::MAX)));

    let mut live: HashMap<&str, u64> = HashMap::new();
    let (mut now, mut peak) = (0u64, 0u64);
    for (step, node) in graph.nodes.iter().enumerate() {
        for name in node.outputs.iter().map(String::as_str) {
            let size = sizes.get(name).copied().unwrap_or(0);
            now = now.saturating_add(size).saturating_sub(live.insert(name, size).unwrap_or(0));
        }
        peak = peak.max(now);
        for name in node.inputs.iter().chain(&node.outputs).map(String::as_str) {
            if last_use.get(name) == Some(&step) {
                now = now.saturating_sub(live.remove(name).unwrap_or(0));
            }
        }
    }
    peak
}

fn bytes(value: &Declared, bits: fn(i32) -> u64) -> u64 {
    let (Kind::Tensor(number), Some(shape)) = (value.kind, &value.shape) else { return 0 };
    shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(n) => *n,
            Dim::Dynamic(_) => 1,
        })
        .fold(bits(number), u64::saturating_mul)
        .div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::super::graph::Node;
    use super::*;

    fn value(name: &str, shape: &[Dim]) -> Declared {
        Declared { name: name.into(), kind: Kind::Tensor(1), shape: Some(shape.to_vec()) }
    }

    fn node(inputs: &[&str], outputs: &[&str]) -> Node {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Node { inputs: owned(inputs), outputs: owned(outputs) }
    }

    #[test]
    fn tensors_are_freed_after_their_last_use() {
        // x -> a -> b -> y, and a is needed again for y: a, b and y are alive at once.
        let graph = Graph {
            values: vec![
                value("a", &[Dim::Fixed(10)]),
                value("b", &[Dim::Dynamic("n".into()), Dim::Fixed(20)]),
            ],
            outputs: vec![value("y", &[Dim::Fixed(5)])],
            nodes: vec![node(&["x"], &["a"]), node(&["a"], &["b"]), node(&["a", "b"], &["y"])],
            ..Graph::default()
        };
        assert_eq!(peak(&graph, crate::element::bits), 4 * (10 + 20 + 5));

        // In a chain only two neighbours are.
        let graph = Graph {
            values: vec![value("a", &[Dim::Fixed(10)]), value("b", &[Dim::Fixed(20)])],
            outputs: vec![value("y", &[Dim::Fixed(5)])],
            nodes: vec![node(&["x"], &["a"]), node(&["a"], &["b"]), node(&["b"], &["y"])],
            ..Graph::default()
        };
        assert_eq!(peak(&graph, crate::element::bits), 4 * (10 + 20));
    }
}
