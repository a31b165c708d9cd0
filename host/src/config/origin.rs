//! Where a value was written: what `config explain` shows, and what a problem points at.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value of the configuration comes from.
#[derive(Debug, Clone, Default)]
pub enum Origin {
    /// Nobody wrote it: the built-in default.
    #[default]
    Default,
    /// A place in a file.
    File(Place),
    /// The environment variable of this name.
    Environment(String),
    /// The command-line flag of this name, for example `--listen`.
    Flag(String),
}

impl Origin {
    /// The place in a file, when it is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::File(place) => Some(place),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built in"),
            Self::File(place) => write!(f, "{}:{}", place.path().display(), place.line()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A stretch of a file's text. Cheap to clone: the text is shared.
#[derive(Debug, Clone)]
pub struct Place {
    source: Arc<Source>,
    span: Range<usize>,
}

/// A file as it was read, kept so that a problem can show the line it is about.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Place {
    /// `span` counts bytes of the source's text. One that does not lie on characters is moved onto them.
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let start = source.text.floor_char_boundary(span.start);
        let end = source.text.floor_char_boundary(span.end).max(start);
        Self { source: Arc::clone(source), span: start..end }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The line it begins on, from 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The column it begins on, from 1, counted in characters.
    pub fn column(&self) -> usize {
        self.line_head().chars().count() + 1
    }

    /// The line with a rule under the part that is meant:
    ///
    /// ```text
    ///   |
    /// 2 | liste = "127.0.0.1:8797"
    ///   | ^^^^^
    /// ```
    pub(super) fn excerpt(&self) -> Excerpt<'_> {
        Excerpt(self)
    }

    fn before(&self) -> &str {
        &self.source.text[..self.span.start]
    }

    /// What stands on the line before the place.
    fn line_head(&self) -> &str {
        self.before().rsplit('\n').next().unwrap_or_default()
    }

    /// The whole line.
    fn line_text(&self) -> &str {
        let start = self.span.start - self.line_head().len();
        self.source.text[start..].lines().next().unwrap_or_default()
    }

    /// Offset of the place's first byte in its file: puts problems in reading order.
    pub(super) fn offset(&self) -> usize {
        self.span.start
    }
}

/// See [`Place::excerpt`].
pub(super) struct Excerpt<'p>(&'p Place);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(place) = self;
        let number = place.line().to_string();
        let gutter = " ".repeat(number.len());
        let line = place.line_text();
        let head = place.line_head();
        // Tabs stay tabs, so that the rule stands under its text at any tab width.
        let indent: String = head.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let meant = place.source.text[place.span.clone()].lines().next().unwrap_or_default();
        let rule = "^".repeat(meant.chars().count().max(1));
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {line}")?;
        write!(f, "{gutter} | {indent}{rule}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> Place {
        let source = Source { path: "pajamas.toml".into(), text: text.into() };
        Place::new(&Arc::new(source), span)
    }

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a = 1\n\"ünï\" = 2\n";
        let two = place(text, text.len() - 2..text.len() - 1);
        assert_eq!((two.line(), two.column()), (2, 9));
        assert_eq!(Origin::File(two).to_string(), "pajamas.toml:2");
    }

    #[test]
    fn a_span_inside_a_character_or_past_the_end_is_moved_onto_the_text() {
        assert_eq!(place("ü = 1", 1..1).column(), 1);
        assert_eq!(place("a = ", 9..12).column(), 5);
    }

    #[test]
    fn an_excerpt_shows_the_line_and_what_is_meant() {
        let text = "[server]\n\tliste = \"x\"\n";
        insta::assert_snapshot!(place(text, 10..15).excerpt(), @r#"
          |
        2 | 	liste = "x"
          | 	^^^^^
        "#);
    }

    #[test]
    fn an_excerpt_of_the_end_of_the_file_still_points_somewhere() {
        insta::assert_snapshot!(place("a = ", 4..4).excerpt(), @r"
          |
        1 | a = 
          |     ^
        ");
    }
}
