//! From a [`Node`] tree to types, through their `serde` implementations.
//!
//! serde stops at the first fault. [`read`] reports it, takes the faulty part out of the tree and tries again, so that
//! a person sees all that is wrong at once, and the types stay the only description of the file.

use std::collections::btree_map;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::origin::Origin;
use super::problem::{Problem, Problems};
use super::suggest;
use super::text::{GrantedFile, LocalPath};
use super::tree::{Content, Entry, Node, Segment};

/// The folders that relative paths and `~/` start from when no file wrote them.
#[derive(Debug, Clone, Default)]
pub(super) struct Folders {
    pub(super) current: PathBuf,
    pub(super) home: Option<PathBuf>,
}

/// Reads a `T`, reporting everything that is wrong and leaving it out.
pub(super) fn read<T>(tree: &mut Node, folders: &Folders, problems: &mut Problems) -> T
where
    T: de::DeserializeOwned + Default,
{
    loop {
        let fault = match T::deserialize(Reader { node: tree, folders }) {
            Ok(value) => return value,
            Err(fault) => fault,
        };
        let path: Vec<Segment> = fault.path.iter().rev().cloned().collect();
        // What is missing may have been there, misspelt: that has been reported already.
        if !(fault.code == Fault::MISSING && tree.is_damaged(&path)) {
            problems.push(fault.problem(tree, &path));
        }
        if !tree.prune(&path) {
            return T::default();
        }
    }
}

/// Why a part of the tree could not be read.
#[derive(Debug)]
struct Fault {
    code: &'static str,
    message: String,
    help: String,
    /// From the fault up to the root.
    path: Vec<Segment>,
}

impl Fault {
    const MISSING: &str = "config-missing-key";
    const UNKNOWN: &str = "config-unknown-key";

    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "config-invalid-value", message: message.into(), help: String::new(), path: Vec::new() }
    }

    fn within(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }

    fn problem(&self, tree: &Node, path: &[Segment]) -> Problem {
        let spelled = tree.spell(path);
        let (origin, message) = match self.code {
            Self::UNKNOWN => {
                let parent = path.split_last().map(|(_, parents)| tree.spell(parents)).unwrap_or_default();
                let within = if parent.is_empty() { String::new() } else { format!(" in `{parent}`") };
                (tree.key_origin(path), format!("{}{within}", self.message))
            }
            _ if spelled.is_empty() => (tree.deepest(path).origin.clone(), self.message.clone()),
            _ => (tree.deepest(path).origin.clone(), format!("`{spelled}`: {}", self.message)),
        };
        Problem::new(self.code, &origin, message).help(&self.help)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::invalid(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid(format!("expected {}, found {}", in_words(&expected.to_string()), name_of(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = suggest::help(variant, "possible values", expected.iter().copied());
        Self { help, ..Self::invalid(format!("`{variant}` is not one of the possible values")) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let help = suggest::help(field, "known keys", expected.iter().copied());
        Self { code: Self::UNKNOWN, help, ..Self::invalid(format!("unknown key `{field}`")) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { code: Self::MISSING, ..Self::invalid(format!("the key `{field}` is missing")) }
    }
}

/// serde speaks of Rust's types; the reader of a message has never heard of them.
fn in_words(expected: &str) -> &str {
    match expected {
        "a string" => "text",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a table",
        other => other,
    }
}

fn name_of(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n}"),
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'t> {
    node: &'t Node,
    folders: &'t Folders,
}

impl<'t> Reader<'t> {
    fn at(self, node: &'t Node) -> Self {
        Self { node, ..self }
    }

    fn unexpected(&self) -> Unexpected<'t> {
        match &self.node.content {
            Content::Table(_) => Unexpected::Map,
            Content::List(_) => Unexpected::Seq,
            Content::Text(text) | Content::Untyped(text) => Unexpected::Str(text),
            Content::Integer(n) => Unexpected::Signed(*n),
            Content::Float(n) => Unexpected::Float(*n),
            Content::Boolean(b) => Unexpected::Bool(*b),
        }
    }

    fn refuse<'de, V: Visitor<'de>>(&self, visitor: &V) -> Fault {
        de::Error::invalid_type(self.unexpected(), visitor)
    }

    /// The text of a variable or flag as the TOML value that it spells, if it does.
    fn spelled(&self) -> Option<Node> {
        match &self.node.content {
            Content::Untyped(text) => Node::parse_value(text, &self.node.origin),
            _ => None,
        }
    }

    /// Makes a path that was written at this node one that holds from everywhere in this process.
    fn resolve(&self, path: &str) -> Result<String, Fault> {
        let folders = self.folders;
        let resolved = match (path.strip_prefix("~/"), &folders.home, &self.node.origin) {
            (Some(rest), Some(home), _) => home.join(rest),
            (Some(_), None, _) => return Err(Fault::invalid("`~/` needs the environment variable HOME")),
            (None, _, Origin::File(place)) => place.path().parent().unwrap_or(Path::new("")).join(path),
            (None, ..) => folders.current.join(path),
        };
        resolved.into_os_string().into_string().map_err(|_| Fault::invalid("the folder's path is not UTF-8"))
    }

    fn entries<'de, V: Visitor<'de>>(
        self,
        table: &'t std::collections::BTreeMap<String, Entry>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries { reader: self, rest: table.iter(), value: None })
    }

    fn items<'de, V: Visitor<'de>>(self, list: &'t [Node], visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Items { reader: self, rest: list.iter().enumerate() })
    }
}

/// Numbers and truth values: as they are, or as the text of a variable or flag spells them.
macro_rules! scalars {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.spelled() {
                Some(node) => self.at(&node).deserialize_any(visitor),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Table(table) => self.entries(table, visitor),
            Content::List(list) => self.items(list, visitor),
            Content::Text(text) => visitor.visit_str(text),
            Content::Integer(n) => visitor.visit_i64(*n),
            Content::Float(n) => visitor.visit_f64(*n),
            Content::Boolean(b) => visitor.visit_bool(*b),
            Content::Untyped(text) => match self.spelled() {
                Some(node) => self.at(&node).deserialize_any(visitor),
                None => visitor.visit_str(text),
            },
        }
    }

    scalars! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Text(text) | Content::Untyped(text) => visitor.visit_str(text),
            _ => Err(self.refuse(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // TOML has no null: what is written is there.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text = match &self.node.content {
            Content::Text(text) | Content::Untyped(text) => text,
            _ if [LocalPath::MARKER, GrantedFile::MARKER].contains(&name) => {
                return Err(self.refuse(&visitor));
            }
            _ => return visitor.visit_newtype_struct(self),
        };
        match name {
            GrantedFile::MARKER if text.starts_with(GrantedFile::ARTIFACT) => {
                visitor.visit_newtype_struct(StrDeserializer::new(text))
            }
            LocalPath::MARKER | GrantedFile::MARKER if !text.is_empty() => {
                visitor.visit_newtype_struct(StringDeserializer::new(self.resolve(text)?))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::List(list) => self.items(list, visitor),
            Content::Untyped(_) => match self.spelled() {
                Some(Node { content: Content::List(list), .. }) => self.items(&list, visitor),
                // One word for a list of one: `--set plugins.search=build`.
                _ => self.items(std::slice::from_ref(self.node), visitor),
            },
            _ => Err(self.refuse(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Table(table) => self.entries(table, visitor),
            Content::Untyped(_) => match self.spelled() {
                Some(node) if matches!(node.content, Content::Table(_)) => {
                    self.at(&node).deserialize_map(visitor)
                }
                _ => Err(self.refuse(&visitor)),
            },
            _ => Err(self.refuse(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let table = match &self.node.content {
            Content::Table(table) => table,
            Content::Untyped(_) => match self.spelled() {
                Some(node) if matches!(node.content, Content::Table(_)) => {
                    return self.at(&node).deserialize_struct(name, fields, visitor);
                }
                _ => return Err(de::Error::invalid_type(self.unexpected(), &"a table")),
            },
            _ => return Err(de::Error::invalid_type(self.unexpected(), &"a table")),
        };
        // Here rather than by the type itself, for the sake of the path to the key.
        match table.keys().find(|key| !fields.contains(&key.as_str())) {
            Some(key) => Err(Fault::unknown_key(key, fields)),
            None => self.entries(table, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Text(text) | Content::Untyped(text) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl Fault {
    fn unknown_key(key: &str, fields: &'static [&'static str]) -> Self {
        <Self as de::Error>::unknown_field(key, fields).within(key.into())
    }
}

struct Entries<'t> {
    reader: Reader<'t>,
    rest: btree_map::Iter<'t, String, Entry>,
    value: Option<(&'t str, &'t Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, entry)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, &entry.node));
        seed.deserialize(StrDeserializer::new(key))
            .map_err(|fault: Fault| fault.within(key.as_str().into()))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, node)) = self.value.take() else {
            return Err(Fault::invalid("a value was asked for before its key"));
        };
        seed.deserialize(self.reader.at(node)).map_err(|fault| fault.within(key.into()))
    }
}

struct Items<'t, I> {
    reader: Reader<'t>,
    rest: I,
}

impl<'de, 't, I: Iterator<Item = (usize, &'t Node)>> SeqAccess<'de> for Items<'t, I> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(self.reader.at(node)).map_err(|fault| fault.within(index.into())).map(Some)
    }
}
