//! Which files of a repository a conversion needs.

use crate::error::{Error, Result};

/// Files beside the weights that tell what a model is, how it splits text and how it talks.
const BESIDE: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
];
/// The index of weights in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The most files that a model is made of.
const MOST_FILES: usize = 10_000;
/// Names that a refusal lists.
const MOST_NAMED: usize = 12;

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The paths.
    pub files: Vec<String>,
    /// The file that stands for the model, where it is not the folder.
    pub main: Option<String>,
}

/// The files that make a model of a repository with these: those of a Hugging Face model, or one GGUF model, which
/// `wanted` names by its path or by a word of its name.
///
/// # Errors
/// `repository-unusable`, `repository-file-not-found`.
pub(super) fn choose(paths: &[&str], wanted: Option<&str>) -> Result<Chosen> {
    let models = gguf(paths);
    let chosen = match wanted {
        Some(wanted) => one_of(&models, wanted)?,
        None => match (weights(paths), models.as_slice()) {
            (weights, _) if !weights.is_empty() && paths.contains(&"config.json") => {
                let beside = paths.iter().filter(|path| belongs(path));
                let files = beside.copied().chain(weights).map(str::to_owned).collect();
                Chosen { files, main: None }
            }
            (_, [only]) => only.clone(),
            (_, []) => return Err(nothing(paths)),
            (_, several) => {
                return Err(Error::new(
                    "repository-unusable",
                    format!("there are {} GGUF models in it", several.len()),
                )
                .help(format!("name one of them after a colon, org/name:FILE: {}", list(several))));
            }
        },
    };
    match chosen.files.len() {
        0..=MOST_FILES => Ok(chosen),
        more => {
            Err(Error::new("repository-unusable", format!("a model of {more} files, more than {MOST_FILES}")))
        }
    }
}

/// Whether a file tells of the model.
fn belongs(path: &str) -> bool {
    let template =
        path.strip_prefix("additional_chat_templates/").is_some_and(|name| name.ends_with(".jinja"));
    // How an embedder makes one vector of many.
    let pooling = path
        .split_once('/')
        .is_some_and(|(folder, name)| folder.ends_with("_Pooling") && name == "config.json");
    BESIDE.contains(&path) || template || pooling
}

/// The weights, with their index: where there are numbered parts, what else there is holds them once more.
fn weights<'p>(paths: &[&'p str]) -> Vec<&'p str> {
    let stem = |path: &'p str| path.strip_prefix("model")?.strip_suffix(".safetensors");
    let at_root = || paths.iter().copied().filter(|path| !path.contains('/'));
    let all: Vec<&str> = at_root().filter(|path| stem(path).is_some()).collect();
    let parts: Vec<&str> = all.iter().copied().filter(|path| stem(path).is_some_and(is_numbered)).collect();
    match (paths.contains(&INDEX), parts.is_empty()) {
        (true, false) => parts.into_iter().chain([INDEX]).collect(),
        (true, true) => all.into_iter().chain([INDEX]).collect(),
        (false, _) if all.contains(&"model.safetensors") => vec!["model.safetensors"],
        (false, _) => all,
    }
}

/// `-00001-of-00004`
fn is_numbered(text: &str) -> bool {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('-')
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(n, of)| number(n) && number(of))
}

/// The GGUF models, each with its parts; what only belongs to one (projectors of pictures) is none.
fn gguf(paths: &[&str]) -> Vec<Chosen> {
    let mut models: Vec<(String, Chosen)> = Vec::new();
    let mut paths: Vec<&str> = paths.iter().copied().filter(|path| is_gguf(path)).collect();
    paths.sort_unstable();
    for path in paths {
        let stem = path.get(..path.len().saturating_sub(".gguf".len())).unwrap_or(path);
        let parts = stem.len().checked_sub("-00001-of-00001".len()).and_then(|at| stem.split_at_checked(at));
        let key = match parts.filter(|(_, number)| is_numbered(number)) {
            Some((name, number)) => format!("{name}{}", number.get("-00001".len()..).unwrap_or_default()),
            None => path.to_owned(),
        };
        match models.iter_mut().find(|(known, _)| *known == key) {
            Some((_, model)) => model.files.push(path.to_owned()),
            None => models.push((key, Chosen { files: vec![path.to_owned()], main: Some(path.to_owned()) })),
        }
    }
    models.into_iter().map(|(_, model)| model).collect()
}

fn is_gguf(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.ends_with(".gguf") && !name.starts_with("mmproj")
}

/// The model whose file is called so, or the only one with this word in its name.
fn one_of(models: &[Chosen], wanted: &str) -> Result<Chosen> {
    let is = |model: &&Chosen| model.files.iter().any(|file| file == wanted);
    if let Some(model) = models.iter().find(is) {
        return Ok(model.clone());
    }
    let has = |model: &&Chosen| model.main.as_deref().is_some_and(|path| has_word(path, wanted));
    let found: Vec<Chosen> = models.iter().filter(has).cloned().collect();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            Err(Error::new("repository-file-not-found", format!("no GGUF file in it is called `{wanted}`"))
                .help(match models.is_empty() {
                    true => "there is none at all: leave out what is after the colon".to_owned(),
                    false => format!("there are {}", list(models)),
                }))
        }
        several => {
            let message = format!("{} GGUF files in it have `{wanted}` in their name", several.len());
            Err(Error::new("repository-file-not-found", message)
                .help(format!("name one of {}", list(several))))
        }
    }
}

/// Whether a word stands in a path by itself: `Q4_K` is none of `Q4_K_M`.
fn has_word(path: &str, word: &str) -> bool {
    let (path, word) = (path.to_ascii_lowercase(), word.to_ascii_lowercase());
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    path.match_indices(&word).any(|(at, _)| {
        let (before, after) = (path.get(..at), path.get(at + word.len()..));
        !before.is_some_and(|text| text.ends_with(part)) && !after.is_some_and(|text| text.starts_with(part))
    })
}

fn list(models: &[Chosen]) -> String {
    let names: Vec<&str> = models.iter().filter_map(|model| model.main.as_deref()).collect();
    match names.get(..MOST_NAMED) {
        Some(some) if names.len() > MOST_NAMED => {
            format!("{}, and {} more", some.join(", "), names.len() - MOST_NAMED)
        }
        _ => names.join(", "),
    }
}

fn nothing(paths: &[&str]) -> Error {
    let pytorch =
        paths.iter().any(|path| path.ends_with(".bin") || path.ends_with(".pt") || path.ends_with(".pth"));
    Error::new("repository-unusable", "it holds neither config.json with model*.safetensors nor a GGUF file").help(
        match pytorch {
            true => "its weights are PyTorch's own files: look for a conversion to safetensors, often a branch refs/pr/N",
            false => "name a repository of a model that generates or embeds text",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str], wanted: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        choose(paths, wanted).map(|mut chosen| {
            chosen.files.sort();
            (chosen.files, chosen.main)
        })
    }

    fn owned(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn of_a_model_only_what_a_conversion_reads_is_taken() {
        let paths = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "picture.png",
            "original/consolidated.safetensors",
            "1_Pooling/config.json",
            "flax_model.msgpack",
            "training_args.bin",
        ];
        let (taken, main) = files(&paths, None).unwrap();
        let wanted = [
            "1_Pooling/config.json",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!((taken, main), (owned(&wanted), None));
    }

    #[test]
    fn weights_are_taken_once() {
        let parts =
            ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX];
        let with = [&parts[..], &["consolidated.safetensors", "model.fp16.safetensors"]].concat();
        assert_eq!(files(&with, None).unwrap().0, owned(&parts));
        let plain = ["config.json", "model.fp16.safetensors", "model.safetensors"];
        assert_eq!(files(&plain, None).unwrap().0, owned(&["config.json", "model.safetensors"]));
    }

    #[test]
    fn of_gguf_files_one_is_taken_with_its_parts() {
        let paths = [
            "README.md",
            "mmproj-F16.gguf",
            "x-BF16.gguf",
            "x-F16.gguf",
            "x-Q4_K_M.gguf",
            "x-Q4_K_S.gguf",
            "big/x-Q8_0-00001-of-00002.gguf",
            "big/x-Q8_0-00002-of-00002.gguf",
        ];
        let q8 = ["big/x-Q8_0-00001-of-00002.gguf", "big/x-Q8_0-00002-of-00002.gguf"];
        let main = |wanted| files(&paths, Some(wanted)).unwrap();
        assert_eq!(main("q8_0"), (owned(&q8), Some(q8[0].to_owned())));
        assert_eq!(main(q8[1]), (owned(&q8), Some(q8[0].to_owned())));
        assert_eq!(main("F16").1.as_deref(), Some("x-F16.gguf"));
        assert_eq!(main("x-Q4_K_M").1.as_deref(), Some("x-Q4_K_M.gguf"));
        for (wanted, code) in [
            (Some("Q4_K"), "repository-file-not-found"),
            (Some("x"), "repository-file-not-found"),
            (None, "repository-unusable"),
        ] {
            let error = files(&paths, wanted).unwrap_err();
            assert_eq!(
                (error.code(), error.how_to_fix().contains("x-Q4_K_M.gguf")),
                (code, true),
                "{wanted:?}"
            );
        }
        assert_eq!(files(&["only.gguf", "config.json"], None).unwrap().1.as_deref(), Some("only.gguf"));
    }

    #[test]
    fn a_repository_without_a_model_is_refused() {
        let error = files(&["config.json", "pytorch_model.bin"], None).unwrap_err();
        assert!(
            error.code() == "repository-unusable" && error.how_to_fix().contains("safetensors"),
            "{error:?}"
        );
        assert_eq!(files(&["README.md"], None).unwrap_err().code(), "repository-unusable");
        assert_eq!(files(&["config.json"], Some("x")).unwrap_err().code(), "repository-file-not-found");
    }
}
