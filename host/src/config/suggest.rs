//! "Did you mean": the known name that is nearest to a mistyped one.

/// The candidate that a person most likely meant by `word`, if one is near enough to be worth saying.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // One slip in a short word, a third of a long one: beyond that a suggestion confuses more than it helps.
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&fold(word), &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A sentence of help for a name that is not known: the nearest one, or else all that there are.
pub fn help<'c>(word: &str, kind: &str, candidates: impl IntoIterator<Item = &'c str> + Clone) -> String {
    if let Some(name) = nearest(word, candidates.clone()) {
        return format!("did you mean `{name}`?");
    }
    let all: Vec<String> = candidates.into_iter().map(|c| format!("`{c}`")).collect();
    if all.is_empty() { format!("there are no {kind} yet") } else { format!("{kind}: {}", all.join(", ")) }
}

/// Case, hyphens and underscores are what people mix up most.
fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_through_case_hyphens_and_slips() {
        let keys = ["listen", "request_timeout", "max_body"];
        assert_eq!(nearest("liste", keys), Some("listen"));
        assert_eq!(nearest("lisetn", keys), Some("listen"));
        assert_eq!(nearest("Request-Timeout", keys), Some("request_timeout"));
        assert_eq!(nearest("port", keys), None);
    }

    #[test]
    fn help_names_one_or_all_or_says_that_there_are_none() {
        assert_eq!(help("chta", "models", ["chat", "shapes"]), "did you mean `chat`?");
        assert_eq!(help("speech", "models", ["chat", "shapes"]), "models: `chat`, `shapes`");
        assert_eq!(help("chat", "models", []), "there are no models yet");
    }
}
