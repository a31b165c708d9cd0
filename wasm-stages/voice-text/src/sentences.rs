//! Where sentences end.

/// What ends a sentence where white space follows.
const ENDS: [char; 8] = ['.', '!', '?', '…', '؟', '۔', '।', '॥'];
/// What ends one wherever it stands.
const FULL: [char; 4] = ['。', '！', '？', '｡'];
/// What still belongs to a sentence behind its end.
const CLOSING: [char; 10] = ['"', '\'', ')', ']', '”', '’', '»', '」', '』', '）'];
/// Where a sentence is cut that is too long.
const PAUSES: [char; 8] = [',', ';', ':', '，', '、', '；', '：', '،'];
/// What has a full stop without an end, in lower case.
const SHORT: [&str; 14] =
    ["mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no", "z.b", "e.g", "i.e", "bzw"];

/// The sentences of a text that have something to say, each of at most so many characters.
pub fn split(text: &str, longest: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let mut to = at + c.len_utf8();
        let ends = if FULL.contains(&c) || ENDS.contains(&c) {
            let mut full = FULL.contains(&c);
            while let Some((next, more)) =
                chars.next_if(|(_, more)| [&ENDS[..], &FULL, &CLOSING].iter().any(|set| set.contains(more)))
            {
                full |= FULL.contains(&more);
                to = next + more.len_utf8();
            }
            full || (text[to..].starts_with(char::is_whitespace)
                && !(c == '.' && goes_on(&text[from..at], &text[to..])))
        } else {
            // An empty line ends what has no full stop, such as a heading.
            c == '\n' && text[to..].trim_start_matches([' ', '\t', '\r']).starts_with('\n')
        };
        if ends {
            push(&text[from..to], longest, &mut parts);
            from = to;
        }
    }
    push(&text[from..], longest, &mut parts);
    parts
}

/// Whether a full stop after `before` ends no sentence: that of a title or an initial, or one that small letters follow.
fn goes_on(before: &str, after: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase) && word != "I";
    initial
        || SHORT.contains(&word.to_lowercase().as_str())
        || after.trim_start().chars().next().is_some_and(char::is_lowercase)
}

fn push<'t>(sentence: &'t str, longest: usize, parts: &mut Vec<&'t str>) {
    let mut rest = sentence.trim();
    while let Some((end, _)) = rest.char_indices().nth(longest) {
        let head = &rest[..end];
        let pause = head.rmatch_indices(PAUSES).map(|(at, pause)| at + pause.len()).next();
        let space = || head.rmatch_indices(char::is_whitespace).map(|(at, _)| at).next();
        let cut = pause.or_else(space).filter(|cut| *cut > 0).unwrap_or(end);
        keep(&rest[..cut], parts);
        rest = rest[cut..].trim_start();
    }
    keep(rest, parts);
}

fn keep<'t>(part: &'t str, parts: &mut Vec<&'t str>) {
    if part.contains(char::is_alphanumeric) {
        parts.push(part.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_do() {
        let text = "Dr. J. Smith paid 3.50 to them, i.e. Mrs. Jones. \"Really?!\" He did...  and went.\n\nA heading\n\nThe end";
        assert_eq!(
            split(text, 400),
            [
                "Dr. J. Smith paid 3.50 to them, i.e. Mrs. Jones.",
                "\"Really?!\"",
                "He did...  and went.",
                "A heading",
                "The end"
            ]
        );
        assert_eq!(split("你好。再见！", 400), ["你好。", "再见！"]);
        assert_eq!(split("one\ntwo", 400), ["one\ntwo"]);
    }

    #[test]
    fn what_says_nothing_is_no_sentence() {
        for nothing in ["", "  \n\n ", "...", "?! - ()", "👋"] {
            assert!(split(nothing, 400).is_empty(), "{nothing:?}");
        }
        assert_eq!(split("... Yes. !!!", 400), ["Yes."]);
    }

    #[test]
    fn a_long_sentence_is_cut_at_a_pause_or_between_words() {
        let text = format!("{}, {}", "word ".repeat(8).trim(), "other ".repeat(8).trim());
        let parts = split(&text, 50);
        assert_eq!(parts.join(" "), text);
        assert!(parts.len() == 2 && parts[0].ends_with(','), "{parts:?}");
        let text = "é".repeat(101);
        let parts = split(&text, 50);
        assert_eq!(parts.iter().map(|part| part.chars().count()).collect::<Vec<_>>(), [50, 50, 1]);
    }
}
