//! The layouts of all types that cross, written down: the text that the snapshot keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use abi_stable::StableAbi;
use abi_stable::library::AbiHeader;
use abi_stable::type_layout::{LifetimeIndexPair, TLData, TLField, TLFunction, TLPrimitive, TypeLayout};

use crate::abi::raw::PluginMod_Ref;

/// Every type of this crate that is reachable from the root module, in the form that [`super::layout_text`]
/// describes. Types of abi_stable appear by name only: its version is pinned, and its own header guards it.
pub(super) fn text() -> String {
    let mut walk = Walk::default();
    walk.visit(<PluginMod_Ref as StableAbi>::LAYOUT);
    let header = AbiHeader::VALUE;
    let mut text = format!("abi_stable: {}.{}\n", header.abi_major, header.abi_minor);
    for block in walk.blocks.values() {
        text.push('\n');
        text.push_str(block);
    }
    text
}

#[derive(Default)]
struct Walk {
    seen: BTreeSet<*const TypeLayout>,
    blocks: BTreeMap<String, String>,
}

impl Walk {
    fn visit(&mut self, layout: &'static TypeLayout) {
        if !self.seen.insert(layout) {
            return;
        }
        // Empty types are marks for the compiler.
        if is_ours(layout) && layout.size() > 0 {
            self.blocks.insert(name(layout), block(layout));
        }
        for field in fields(layout).into_iter().chain(layout.phantom_fields().iter()) {
            self.visit(field.layout());
            for function in field.function_range().iter() {
                function.param_type_layouts.iter().for_each(|parameter| self.visit(parameter()));
                if let Some(returned) = function.return_type_layout() {
                    self.visit(returned());
                }
            }
        }
    }
}

fn is_ours(layout: &TypeLayout) -> bool {
    layout.package() == env!("CARGO_PKG_NAME")
}

fn fields(layout: &'static TypeLayout) -> Vec<TLField> {
    layout.get_fields().map(|f| f.iter().collect()).unwrap_or_default()
}

fn block(layout: &'static TypeLayout) -> String {
    let name = name(layout);
    let size = format!("{} bytes, alignment {}", layout.size(), layout.alignment());
    let mut block = match layout.data() {
        // What grows has no fixed size: the reader asks for each field whether it is there.
        TLData::PrefixType(p) => format!("growing {name}: first {} always there\n", p.first_suffix_field),
        TLData::Enum(e) => format!("frozen {name}: enum {}, {size}\n", e.variant_names),
        _ => format!("frozen {name}: {:?}, {size}\n", layout.repr_attr()),
    };
    for field in fields(layout) {
        let functions: Vec<String> = field.function_range().iter().map(|f| signature(&f)).collect();
        // Writing to a string cannot fail.
        let _ = match functions.is_empty() {
            true => writeln!(block, "    {}: {}", field.name(), reference(field.layout())),
            false => writeln!(block, "    {}: {}", field.name(), functions.join(", ")),
        };
    }
    block
}

/// The methods of a trait lie in a type that is always called `VTable`: its module tells the trait.
fn name(layout: &TypeLayout) -> String {
    let path = layout.mod_path().to_string();
    let module = path.rsplit("::").next().unwrap_or_default();
    match layout.name() {
        "VTable" => format!("{module}::VTable"),
        name => name.to_owned(),
    }
}

/// How a field or a parameter names a type. The parameters of abi_stable's containers are not in their names;
/// what their variants, or their markers, hold stands for them.
fn reference(layout: &'static TypeLayout) -> String {
    let parameters: Vec<String> =
        layout.generics().type_params().iter().map(|parameter| reference(parameter())).collect();
    let target = parameters.join(", ");
    let held = |layouts: Vec<TLField>| {
        let held: Vec<String> = layouts.iter().map(|f| reference(f.layout())).collect();
        if held.is_empty() { layout.name().into() } else { format!("{}<{}>", layout.name(), held.join(", ")) }
    };
    match layout.data() {
        TLData::Primitive(TLPrimitive::SharedRef) => format!("&{target}"),
        TLData::Primitive(TLPrimitive::MutRef) => format!("&mut {target}"),
        TLData::Primitive(TLPrimitive::ConstPtr) => format!("*const {target}"),
        TLData::Primitive(TLPrimitive::MutPtr) => format!("*mut {target}"),
        _ if is_ours(layout) => name(layout),
        _ if layout.name() == "PhantomData" => target,
        TLData::Enum(e) => held(e.fields.iter().collect()),
        _ if !parameters.is_empty() => format!("{}<{target}>", layout.name()),
        _ => held(
            fields(layout).into_iter().filter(|f| matches!(f.name(), "_marker" | "data")).take(1).collect(),
        ),
    }
}

fn signature(function: &TLFunction) -> String {
    let parameters: Vec<String> = function.param_type_layouts.iter().map(|p| reference(p())).collect();
    let returned = function.return_type_layout().map_or_else(|| "()".into(), |r| reference(r()));
    let lifetimes = lifetimes(&function.paramret_lifetime_indices);
    format!("fn({}) -> {returned}{lifetimes}", parameters.join(", "))
}

/// The lifetimes in the order of their appearance: abi_stable compares them, so they belong to the snapshot.
fn lifetimes(pairs: &[LifetimeIndexPair]) -> String {
    let all = format!("{pairs:?}").replace(['[', ']'], "");
    let all = all.trim_end_matches(", NONE").trim_end_matches("NONE");
    if all.is_empty() { String::new() } else { format!(" where lifetimes are {all}") }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn names_every_trait_and_says_nothing_of_this_build() {
        let text = text();
        for part in ["Backend", "Session", "Quantizer", "Plugin", "Host", "TokenSink", "TensorSink"] {
            assert!(
                text.contains(&format!("growing Raw{part}_trait::VTable")),
                "{part} is missing in\n{text}"
            );
        }
        assert_eq!(text, super::text());
        assert!(!text.contains("/src/") && !text.contains("0x"), "{text}");
    }
}
