//! What a voice knows: its symbols, their ids, and what stands between and around them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::voice::invalid;
use pajamas_stage::Result;

/// The symbols of a voice.
#[derive(Debug)]
pub struct Alphabet {
    ids: BTreeMap<String, Vec<i64>>,
    frame: Frame,
}

/// What stands between and around the ids of a sentence.
#[derive(Debug)]
enum Frame {
    /// piper's: a beginning and what fills, each symbol and what fills, an end.
    Around { begin: Vec<i64>, fill: Vec<i64>, end: Vec<i64> },
    /// transformers': the id 0 before, between and behind them.
    Blank,
    /// Nothing.
    Plain,
}

impl Alphabet {
    /// piper's `phoneme_id_map`: symbols with lists of ids, of which there are `count` where that is known.
    pub fn of_piper(map: &Map<String, Json>, count: Option<u64>) -> Result<Self> {
        let mut ids = BTreeMap::new();
        for (symbol, list) in map {
            let list: Option<Vec<i64>> = match list {
                Json::Array(list) => list.iter().map(|id| checked(id, count)).collect(),
                one => checked(one, count).map(|id| vec![id]),
            };
            let wrong = || invalid(format!("`phoneme_id_map` gives {symbol:?} no ids that the voice has"));
            ids.insert(symbol.clone(), list.ok_or_else(wrong)?);
        }
        let frame = |symbol: &str| {
            let wrong =
                || invalid(format!("`phoneme_id_map` has no {symbol:?}, which stands around every sentence"));
            ids.get(symbol).cloned().ok_or_else(wrong)
        };
        let frame = Frame::Around { begin: frame("^")?, fill: frame("_")?, end: frame("$")? };
        Ok(Self { ids, frame })
    }

    /// transformers' `vocab.json`: symbols with an id, of which there are `count` where that is known.
    pub fn of_vocabulary(map: &Map<String, Json>, count: Option<u64>, blanks: bool) -> Result<Self> {
        let entry = |(symbol, id): (&String, &Json)| {
            let wrong = || invalid(format!("`vocab.json` gives {symbol:?} no id that the voice has"));
            Ok((symbol.clone(), vec![checked(id, count).ok_or_else(wrong)?]))
        };
        let ids = map.iter().map(entry).collect::<Result<BTreeMap<_, _>>>()?;
        if ids.is_empty() {
            return Err(invalid("`vocab.json` is empty"));
        }
        Ok(Self { ids, frame: if blanks { Frame::Blank } else { Frame::Plain } })
    }

    /// The ids of a symbol. Those that only stand around sentences are none of a text.
    pub fn ids(&self, symbol: &str) -> Option<&[i64]> {
        let around = matches!(self.frame, Frame::Around { .. }) && matches!(symbol, "^" | "_" | "$");
        self.ids.get(symbol).filter(|_| !around).map(Vec::as_slice)
    }

    /// The ids of a character.
    pub fn of_char(&self, c: char) -> Option<&[i64]> {
        self.ids(c.encode_utf8(&mut [0; 4]))
    }

    /// The symbols of more than one character.
    pub fn long(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str).filter(|symbol| symbol.chars().nth(1).is_some())
    }

    /// A sentence of symbols, each with its ids; none where there is no symbol.
    pub fn sentence<'i>(&self, symbols: impl IntoIterator<Item = &'i [i64]>) -> Vec<i64> {
        let mut symbols = symbols.into_iter().peekable();
        let mut ids = Vec::new();
        if symbols.peek().is_none() {
            return ids;
        }
        match &self.frame {
            Frame::Around { begin, fill, end } => {
                ids.extend(begin.iter().chain(fill));
                symbols.for_each(|symbol| ids.extend(symbol.iter().chain(fill)));
                ids.extend(end);
            }
            Frame::Blank => {
                ids.push(0);
                symbols.flatten().for_each(|id| ids.extend([*id, 0]));
            }
            Frame::Plain => ids.extend(symbols.flatten()),
        }
        ids
    }
}

fn checked(id: &Json, count: Option<u64>) -> Option<i64> {
    let id = id.as_u64().filter(|id| count.is_none_or(|count| *id < count))?;
    i64::try_from(id).ok()
}
