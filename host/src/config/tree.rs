//! A configuration as it was written: a tree of values that know their origin.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{Origin, Place, Source};
use super::problem::{Problem, Problems};

/// A value and where it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) content: Content,
    /// Something below was wrong, has been reported and taken out: what is missing here may only seem so.
    pub(super) damaged: bool,
    /// An entry of this list was wrong as a whole and has been taken out.
    pub(super) incomplete: bool,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Table(BTreeMap<String, Entry>),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Text of an environment variable or a flag, whose type the key decides.
    Untyped(String),
}

impl Default for Content {
    fn default() -> Self {
        Self::Table(BTreeMap::new())
    }
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Origin,
    pub(super) node: Node,
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Node {
    pub(super) fn new(origin: Origin, content: Content) -> Self {
        Self { origin, content, damaged: false, incomplete: false }
    }

    /// Parses a file. Every syntax error is reported, and the rest of the file is still understood.
    pub(super) fn parse(source: &Arc<Source>, problems: &mut Problems) -> Self {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            let origin = Origin::File(Place::new(source, error.span().unwrap_or_default()));
            problems.push(Problem::new("config-syntax", &origin, error.message()));
        }
        let root = Origin::File(Place::new(source, 0..0));
        let origins = |span| Origin::File(Place::new(source, span));
        let content = Content::of_table(table.into_inner(), &origins, problems);
        Self { damaged: !problems.is_empty(), ..Self::new(root, content) }
    }

    /// Reads `text`, which came from `origin`, as one TOML value; `None` when it is not one.
    pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Self> {
        let value = DeValue::parse(text.trim()).ok()?;
        let mut problems = Problems::default();
        let node = Self::of(value, &|_| origin.clone(), &mut problems);
        problems.is_empty().then_some(node)
    }

    fn of(
        value: Spanned<DeValue<'_>>,
        origins: &impl Fn(std::ops::Range<usize>) -> Origin,
        problems: &mut Problems,
    ) -> Self {
        let origin = origins(value.span());
        let content = match value.into_inner() {
            DeValue::String(text) => Content::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Content::Integer(number),
                Err(_) => {
                    problems.push(Problem::new("config-invalid-value", &origin, "the number is too large"));
                    Content::Integer(0)
                }
            },
            DeValue::Float(number) => Content::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(truth) => Content::Boolean(truth),
            // Nothing in the configuration is a point in time: a plugin's option gets it as it was written.
            DeValue::Datetime(time) => Content::Text(time.to_string()),
            DeValue::Array(items) => {
                Content::List(items.into_iter().map(|item| Self::of(item, origins, problems)).collect())
            }
            DeValue::Table(table) => Content::of_table(table, origins, problems),
        };
        Self::new(origin, content)
    }

    /// The value of `key`, when this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Table(table) => table.get(key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The `id` of a table that has one.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.get("id")?.content {
            Content::Text(id) | Content::Untyped(id) => Some(id),
            _ => None,
        }
    }

    /// The node at the end of `path`, or the deepest one on the way that exists.
    pub(super) fn deepest(&self, path: &[Segment]) -> &Node {
        let mut node = self;
        for segment in path {
            match node.child(segment) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }

    /// Where the key at the end of `path` was written.
    pub(super) fn key_origin(&self, path: &[Segment]) -> Origin {
        let Some((last, parents)) = path.split_last() else { return self.origin.clone() };
        match (&self.deepest(parents).content, last) {
            (Content::Table(table), Segment::Key(key)) => table.get(key).map(|entry| entry.key.clone()),
            _ => None,
        }
        .unwrap_or_else(|| self.deepest(path).origin.clone())
    }

    /// Whether something was reported and taken out at, or below, the end of `path`.
    pub(super) fn is_damaged(&self, path: &[Segment]) -> bool {
        self.deepest(path).damaged
    }

    fn child(&self, segment: &Segment) -> Option<&Node> {
        match (&self.content, segment) {
            (Content::List(items), Segment::Index(i)) => items.get(*i),
            (Content::Table(_), Segment::Key(key)) => self.get(key),
            _ => None,
        }
    }

    fn child_mut(&mut self, segment: &Segment) -> Option<&mut Node> {
        match (&mut self.content, segment) {
            (Content::List(items), Segment::Index(i)) => items.get_mut(*i),
            (Content::Table(table), Segment::Key(key)) => table.get_mut(key).map(|entry| &mut entry.node),
            _ => None,
        }
    }

    /// Takes out what lies at the end of `path`, or the deepest part of it that exists, and marks the way there as
    /// damaged. `false` when that would be the whole tree.
    pub(super) fn prune(&mut self, path: &[Segment]) -> bool {
        self.damaged = true;
        let Some((first, rest)) = path.split_first() else { return false };
        match self.child_mut(first) {
            None => false,
            Some(child) => {
                if !child.prune(rest) {
                    self.remove(first);
                }
                true
            }
        }
    }

    /// Takes over what `other` has at `path`, also that it has nothing there.
    pub(super) fn graft(&mut self, other: &Self, path: &[&str]) {
        let (Some((first, rest)), Content::Table(table)) = (path.split_first(), &mut self.content) else {
            return;
        };
        let theirs = match &other.content {
            Content::Table(table) => table.get(*first),
            _ => None,
        };
        match (theirs, rest.is_empty()) {
            (Some(theirs), true) => drop(table.insert((*first).to_owned(), theirs.clone())),
            (None, true) => drop(table.remove(*first)),
            (theirs, false) => {
                if let Some(theirs) = theirs {
                    let empty = Entry {
                        key: theirs.key.clone(),
                        node: Self::new(theirs.node.origin.clone(), Content::default()),
                    };
                    table.entry((*first).to_owned()).or_insert(empty);
                }
                if let Some(ours) = table.get_mut(*first) {
                    ours.node.graft(theirs.map_or(&Self::default(), |theirs| &theirs.node), rest);
                }
            }
        }
    }

    fn remove(&mut self, segment: &Segment) {
        match (&mut self.content, segment) {
            (Content::List(items), Segment::Index(i)) => {
                items.remove(*i);
                self.incomplete = true;
            }
            (Content::Table(table), Segment::Key(key)) => drop(table.remove(key)),
            _ => {}
        }
    }

    /// Where the value at the end of `path` was written: the built-in default when nobody did.
    pub(super) fn origin_of(&self, path: &[Segment]) -> Origin {
        let Some((first, rest)) = path.split_first() else { return self.origin.clone() };
        match (self.child(first), &self.content) {
            (Some(child), _) => child.origin_of(rest),
            // A whole table or list, spelled by one variable or flag.
            (None, Content::Untyped(text)) => match Self::parse_value(text, &self.origin) {
                Some(spelled) => spelled.origin_of(path),
                None => self.origin.clone(),
            },
            (None, _) => Origin::Default,
        }
    }

    /// How a person writes `path`, as `--set` takes it: entries of a list by their id, or else their number, for
    /// example `models.chat.device` or `pipelines.find.steps.2.stage`.
    pub(super) fn spell(&self, path: &[Segment]) -> String {
        let mut names = Vec::new();
        let mut node = Some(self);
        for segment in path {
            node = node.and_then(|n| n.child(segment));
            names.push(match (segment, node.and_then(Node::id)) {
                (Segment::Index(_), Some(id)) => quoted_if_needed(id),
                (Segment::Index(index), None) => index.to_string(),
                (Segment::Key(key), _) => quoted_if_needed(key),
            });
        }
        names.join(".")
    }
}

/// TOML's rule for bare keys.
fn quoted_if_needed(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

impl Content {
    fn of_table(
        table: DeTable<'_>,
        origins: &impl Fn(std::ops::Range<usize>) -> Origin,
        problems: &mut Problems,
    ) -> Self {
        let entry = |(key, value): (Spanned<_>, _), problems: &mut Problems| {
            let written = origins(key.span());
            let name: std::borrow::Cow<'_, str> = key.into_inner();
            (name.into_owned(), Entry { key: written, node: Node::of(value, origins, problems) })
        };
        Self::Table(table.into_iter().map(|pair| entry(pair, problems)).collect())
    }
}
