//! The text that a model is calibrated with: files, and domains that this project brings along.

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{PluginError, Result};

use crate::error::{self, codes as own};
use crate::hash;

include!(concat!(env!("OUT_DIR"), "/domains.rs"));

/// The line between two documents of a domain.
const BETWEEN: &str = "-----";
/// One document in so many is held out: it is never calibrated with, so that what was made can be judged by it.
const HELD_OUT: usize = 5;
/// The largest text: beyond it, a file is not a text for calibrating.
const MOST_BYTES: u64 = 256 << 20;

/// Which documents of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those to calibrate with.
    Train,
    /// Those to judge by.
    HeldOut,
}

/// A text to calibrate with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What people call it: domains and files, with `+` between.
    pub name: String,
    /// The text.
    pub text: String,
    /// SHA-256 of it.
    pub sha256: String,
}

impl Text {
    /// Files, which are taken as they are, and domains, whose documents to train with are taken.
    ///
    /// # Errors
    /// `model-not-found` and `importance-invalid` about a file; `domain-not-found`.
    pub fn gather(files: &[PathBuf], domains: &[String]) -> Result<Self> {
        Self::of(files, domains, Part::Train, |text| text)
    }

    /// A part of the same: of domains it is their documents, of files the lines before the last fifth, or this fifth.
    ///
    /// # Errors
    /// As for [`Text::gather`].
    pub fn part(files: &[PathBuf], domains: &[String], part: Part) -> Result<Self> {
        Self::of(files, domains, part, |text| {
            let (before, last) = text.split_at(last_part(&text));
            if part == Part::Train { before.to_owned() } else { last.to_owned() }
        })
    }

    fn of(
        files: &[PathBuf],
        domains: &[String],
        part: Part,
        of_file: impl Fn(String) -> String,
    ) -> Result<Self> {
        let mut parts: Vec<(String, String)> = Vec::new();
        for name in domains {
            let (name, text) = domain(name)?;
            parts.push((name.to_owned(), documents(text, part)));
        }
        for path in files {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            parts.push((name, of_file(read(path)?)));
        }
        let (names, texts): (Vec<String>, Vec<String>) = parts.into_iter().unzip();
        let text = texts.join("\n\n");
        Ok(Self { name: names.join("+"), sha256: hash::of(&[text.as_bytes()]), text })
    }
}

/// Where the last fifth of a text begins: with a line, or a character where lines are long.
fn last_part(text: &str) -> usize {
    let least = text.floor_char_boundary(text.len() / HELD_OUT * (HELD_OUT - 1));
    text[least..].find('\n').map(|end| least + end + 1).filter(|at| *at < text.len()).unwrap_or(least)
}

/// The names of the domains.
pub fn domains() -> impl Iterator<Item = &'static str> {
    DOMAINS.iter().map(|(name, _)| *name)
}

/// A domain by its name; words may be parted by spaces, too.
fn domain(wanted: &str) -> Result<(&'static str, &'static str)> {
    let plain = wanted.trim().to_lowercase().replace([' ', '_'], "-");
    DOMAINS.iter().find(|(name, _)| *name == plain).copied().ok_or_else(|| {
        let known: Vec<&str> = domains().collect();
        let what = format!("there is no calibration domain `{}`", wanted.escape_debug());
        PluginError::new(own::DOMAIN_NOT_FOUND, what)
            .help(format!("domains are {}; or give a text of your own", known.join(", ")))
    })
}

/// The documents of a domain's part, one after the other.
pub fn documents(text: &str, part: Part) -> String {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        match (line.trim_end() == BETWEEN, documents.last_mut()) {
            (false, Some(last)) => {
                last.push_str(line);
                last.push('\n');
            }
            _ => documents.push(String::new()),
        }
    }
    let documents = documents.iter().map(|d| d.trim()).filter(|d| !d.is_empty()).enumerate();
    let held_out = |at: usize| at % HELD_OUT == HELD_OUT - 1;
    let wanted = documents.filter(|(at, _)| held_out(*at) == (part == Part::HeldOut));
    wanted.map(|(_, document)| document).collect::<Vec<_>>().join("\n\n")
}

/// The part of a domain that is never calibrated with.
///
/// # Errors
/// `domain-not-found`.
pub fn held_out(name: &str) -> Result<String> {
    Ok(documents(domain(name)?.1, Part::HeldOut))
}

fn read(path: &Path) -> Result<String> {
    let missing = |e: std::io::Error| PluginError::model_unreadable(path, &e);
    let bytes = fs::metadata(path).map_err(missing)?.len();
    if bytes > MOST_BYTES {
        let what = format!("has {bytes} bytes; texts to calibrate with have {MOST_BYTES} at most");
        return Err(error::at(own::IMPORTANCE_INVALID, path, what));
    }
    let text = String::from_utf8(fs::read(path).map_err(missing)?);
    text.map_err(|e| {
        error::at(own::IMPORTANCE_INVALID, path, format!("is no text in UTF-8: {e}")).help("give a text file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_document_is_held_out() {
        let text: Vec<String> = (1..=11).map(|n| format!("document {n}\nof two lines")).collect();
        let text = text.join("\n-----\n");
        let held_out = documents(&text, Part::HeldOut);
        assert_eq!(held_out, "document 5\nof two lines\n\ndocument 10\nof two lines");
        let train = documents(&text, Part::Train);
        assert_eq!(train.matches("document").count(), 9);
        assert!(!train.contains("document 5") && !train.contains("-----"));
        // A line that only looks alike is part of its document; empty documents are none.
        assert_eq!(documents("a\n------\nb\n-----\n\n-----\n", Part::Train), "a\n------\nb");
    }

    #[test]
    fn the_last_fifth_of_a_file_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let lines: Vec<String> = (0..100).map(|n| format!("line {n:02} ä\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        let of = |part| Text::part(std::slice::from_ref(&path), &[], part).unwrap().text;
        let (train, held_out) = (of(Part::Train), of(Part::HeldOut));
        assert_eq!(format!("{train}{held_out}"), lines.concat());
        assert!(held_out.starts_with("line ") && (15..=20).contains(&held_out.lines().count()), "{held_out}");
        fs::write(&path, "ä".repeat(100)).unwrap();
        assert_eq!(of(Part::HeldOut).chars().count(), 20, "a text of one line");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        let refused = |path: &Path| Text::gather(&[path.to_owned()], &[]).unwrap_err().code;
        assert_eq!(refused(&path), "importance-invalid");
        assert_eq!(refused(&folder.path().join("none")), "model-not-found");
        fs::write(&path, "ä").unwrap();
        let text = Text::gather(&[path.clone(), path], &[]).unwrap();
        assert_eq!((text.name.as_str(), text.text.as_str()), ("a.txt+a.txt", "ä\n\nä"));
        assert_eq!(Text::gather(&[], &["astrology".into()]).unwrap_err().code, "domain-not-found");
    }

    /// The domains are written for models of tens of thousands of words: a token is four letters or more.
    #[test]
    fn domains_are_long_enough_and_parted_into_documents() {
        for (name, text) in DOMAINS {
            let count = |part| documents(text, part).split("\n\n").count();
            assert!(text.len() > 4 * 4096, "{name} has {} bytes", text.len());
            assert!(count(Part::HeldOut) > 0 && count(Part::Train) > count(Part::HeldOut), "{name}");
            assert!(held_out(name).is_ok_and(|text| !text.is_empty()), "{name}");
        }
    }
}
