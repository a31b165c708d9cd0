//! Which hub, where its files are kept, and who asks: by the variables that its other programs read, too.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::outbound::Secret;

/// The hub when `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";

/// How a hub is asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub's address, without `/` at its end (`HF_ENDPOINT`).
    pub(super) endpoint: String,
    /// Shown to the hub and to nobody else (`HF_TOKEN`, or a file).
    pub(super) token: Option<Secret>,
    /// The folder of repositories (`HF_HUB_CACHE`, or `hub` in `HF_HOME`).
    pub(super) cache: PathBuf,
    /// Whether to ask nobody (`HF_HUB_OFFLINE`).
    pub(super) offline: bool,
}

impl Settings {
    /// Those of this process.
    ///
    /// # Errors
    /// `invalid-option` for an address that is none, a token that no header can hold, or without a home to keep files in.
    pub fn from_process() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::from(&variable, etcetera::home_dir().ok().as_deref())
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>, user: Option<&Path>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| set(name).map(|value| at_home(&value, user));
        let home = path("HF_HOME").or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")));
        let home = home.or_else(|| Some(user?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let Some(cache) = cache else {
            return Err(Error::new("invalid-option", "there is no folder to keep downloaded files in")
                .help("name one in HF_HUB_CACHE"));
        };
        let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        Ok(Self {
            endpoint: endpoint(set("HF_ENDPOINT"))?,
            token: match is_true(set("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
                true => None,
                false => token(set("HF_TOKEN"), file.as_deref())?,
            },
            cache,
            offline: is_true(set("HF_HUB_OFFLINE")),
        })
    }

    /// Where files are kept.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

/// A path of a variable, of which no shell has made `~` a home.
fn at_home(path: &str, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), user) {
        (Some(rest), Some(user)) => user.join(rest),
        _ => PathBuf::from(path),
    }
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
}

fn endpoint(given: Option<String>) -> Result<String> {
    let address = given.unwrap_or_else(|| ENDPOINT.to_owned());
    let address = address.trim().trim_end_matches('/');
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    match host.filter(|host| !host.is_empty() && !host.contains(['?', '#', '@']) && !host.starts_with('/')) {
        Some(_) if address.parse::<ureq::http::Uri>().is_ok() => Ok(address.to_owned()),
        _ => Err(Error::new(
            "invalid-option",
            format!("HF_ENDPOINT: `{}` is no address", address.escape_debug()),
        )
        .help(format!("give one that begins with https:// or http://, or none for {ENDPOINT}"))),
    }
}

/// The token: the variable goes before the file, which `hf auth login` writes.
fn token(given: Option<String>, file: Option<&Path>) -> Result<Option<Secret>> {
    let (text, place) = match (given, file) {
        (Some(text), _) => (text, "HF_TOKEN".to_owned()),
        (None, Some(file)) => match std::fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => (text, file.display().to_string()),
            _ => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    match Secret::of(&text) {
        Some(token) => Ok(Some(token)),
        None => Err(Error::new("invalid-option", format!("{place} holds no token"))
            .help("a token begins with hf_ and has no spaces in it; public models need none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings> {
        let get =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::from(&get, Some(Path::new("/home/me")))
    }

    #[test]
    fn without_variables_the_usual_hub_and_cache_are_meant() {
        let usual = of(&[("HF_TOKEN", " ")]).unwrap();
        assert_eq!((usual.endpoint.as_str(), usual.offline), (ENDPOINT, false));
        assert_eq!(usual.cache, Path::new("/home/me/.cache/huggingface/hub"));
        assert!(usual.token.is_none());
    }

    #[test]
    fn variables_say_where_and_who() {
        let cache = |variables| of(variables).unwrap().cache;
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/home/me/h/hub"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), Path::new("/c"));
        let set =
            of(&[("HF_ENDPOINT", "http://127.0.0.1:9/"), ("HF_HUB_OFFLINE", "True"), ("HF_TOKEN", "hf_x\n")]);
        let set = set.unwrap();
        assert_eq!((set.endpoint.as_str(), set.offline), ("http://127.0.0.1:9", true));
        assert_eq!(set.token.unwrap().authorization(), "Bearer hf_x");
        assert!(of(&[("HF_TOKEN", "hf_x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap().token.is_none());
        for wrong in ["ftp://x", "x", "https://", "https://a@b", "http://a b"] {
            assert_eq!(of(&[("HF_ENDPOINT", wrong)]).unwrap_err().code(), "invalid-option", "{wrong}");
        }
        let error = of(&[("HF_TOKEN", "two words")]).unwrap_err();
        assert!(error.code() == "invalid-option" && !error.message().contains("words"), "{error}");
    }

    #[test]
    fn a_token_may_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        let token = |variables: &[_]| of(variables).unwrap().token.map(|token| token.authorization());
        assert_eq!(token(&[home]).as_deref(), Some("Bearer hf_file"));
        assert_eq!(token(&[home, ("HF_TOKEN", "hf_set")]).as_deref(), Some("Bearer hf_set"));
    }
}
