//! Which file is read, and how the environment and the command line are laid over it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::de::Folders;
use super::origin::{Origin, Source};
use super::problem::{Problem, Problems};
use super::suggest;
use super::tree::{Content, Entry, Node};

/// What names the file when no flag does.
const FILE_VARIABLE: &str = "PAJAMAS_CONFIG";

/// `PAJAMAS_SERVER__LISTEN` is `server.listen`. Variables without `__` are not configuration keys.
const VARIABLE_PREFIX: &str = "PAJAMAS_";

/// More than this is not a configuration but, most likely, a model given by mistake.
const MAX_FILE: u64 = 4 << 20;

/// Lists of entries with an `id`, which overrides address by it.
const LISTS: [&str; 4] = ["models", "pipelines", "ladders", "routes"];

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The file to read. When not set: `$PAJAMAS_CONFIG`, else `pajamas.toml` in `folder`, else
    /// `pajamas/pajamas.toml` in `$XDG_CONFIG_HOME` (or `~/.config`), else the built-in defaults alone.
    pub file: Option<PathBuf>,
    /// The environment, as name and value.
    pub environment: Vec<(String, String)>,
    /// Keys that command-line flags set. Later ones win.
    pub overrides: Vec<Override>,
    /// The folder that relative paths of the environment and the flags start from.
    pub folder: PathBuf,
}

/// What tells one state of a file from another without reading it. A symbolic link is followed: what it leads to counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<std::time::SystemTime>,
    length: u64,
    /// Device, number and time of the latest change of the file's entry: another file may have taken the name and kept
    /// the rest.
    #[cfg(unix)]
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    /// That of the file at `path` now; `None` when there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Some(Self {
            modified: data.modified().ok(),
            length: data.len(),
            #[cfg(unix)]
            identity: (data.dev(), data.ino(), data.ctime(), data.ctime_nsec()),
        })
    }
}

/// One key that a command-line flag sets.
#[derive(Debug, Clone)]
pub struct Override {
    /// The flag as the person wrote it, for messages: `--listen`.
    pub flag: String,
    /// The key: `server.listen`, `models.chat.device`.
    pub key: String,
    /// Its value: text as it is, other types as TOML spells them.
    pub value: String,
}

impl LoadOptions {
    /// The environment and the current folder of this process.
    pub fn from_process() -> Self {
        let text = |os: std::ffi::OsString| os.into_string().ok();
        Self {
            file: None,
            environment: std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect(),
            overrides: Vec::new(),
            folder: std::env::current_dir().unwrap_or_default(),
        }
    }

    pub(super) fn folders(&self) -> Folders {
        Folders { current: self.folder.clone(), home: self.variable("HOME").map(PathBuf::from) }
    }

    /// The file to read and who named it.
    pub(super) fn find_file(&self) -> Result<Option<PathBuf>, Problem> {
        let named = match (&self.file, self.variable(FILE_VARIABLE)) {
            (Some(file), _) => Some((self.folder.join(file), Origin::Flag("--config".to_owned()))),
            (None, Some(file)) => {
                Some((self.folder.join(file), Origin::Environment(FILE_VARIABLE.to_owned())))
            }
            (None, None) => None,
        };
        match named {
            Some((file, _)) if file.is_file() => Ok(Some(file)),
            Some((file, origin)) => {
                let what = if file.is_dir() { "is a folder, not a file" } else { "no such file" };
                Err(Problem::new("config-file-missing", &origin, format!("{}: {what}", file.display()))
                    .help("name a file such as pajamas.toml, or leave it out to search for one"))
            }
            None => Ok(self.usual_files().into_iter().find(|file| file.is_file())),
        }
    }

    fn usual_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.folder.join("pajamas.toml")];
        // The XDG specification: a relative or empty value counts as not set.
        let xdg = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let user = xdg.or_else(|| self.variable("HOME").map(|home| Path::new(home).join(".config")));
        files.extend(user.map(|folder| folder.join("pajamas/pajamas.toml")));
        files
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Lays the environment over the tree, and the flags over both.
    pub(super) fn lay_over(&self, tree: &mut Node, problems: &mut Problems) {
        let mut variables: Vec<_> =
            self.environment.iter().filter_map(|(n, v)| Some((n, variable_key(n)?, v))).collect();
        // The environment has no order of its own: give it one, so that the same variables mean the same.
        variables.sort();
        for (name, key, value) in variables {
            let origin = Origin::Environment(name.clone());
            set(tree, &key, Spelling::Variable, value, &origin)
                .unwrap_or_else(|problem| problems.push(problem));
        }
        for Override { flag, key, value } in &self.overrides {
            let origin = Origin::Flag(flag.clone());
            flag_key(key)
                .ok_or_else(|| {
                    Problem::new("config-invalid-value", &origin, format!("`{key}` is not a key"))
                        .help("write it with dots, for example `server.listen` or `models.chat.device`")
                })
                .and_then(|key| set(tree, &key, Spelling::Exact, value, &origin))
                .unwrap_or_else(|problem| problems.push(problem));
        }
    }
}

/// Reads a file whole, refusing what cannot be a configuration.
pub(super) fn read_file(path: &Path) -> Result<Arc<Source>, Problem> {
    let whole = Origin::default();
    let refuse = |code, what: String| Problem::new(code, &whole, format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse("io", error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse(
            "config-syntax",
            format!("larger than {} MiB: not a configuration", MAX_FILE >> 20),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refuse("config-syntax", format!("byte {at} is not UTF-8 text")).help("save the file as UTF-8")
    })?;
    Ok(Arc::new(Source { path: path.to_owned(), text }))
}

/// How a key's names are compared with those of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Exact,
    /// A variable's name has neither lower case nor hyphens.
    Variable,
}

impl Spelling {
    fn matches(self, written: &str, known: &str) -> bool {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        match self {
            Self::Exact => written == known,
            Self::Variable => written.chars().map(fold).eq(known.chars().map(fold)),
        }
    }
}

fn variable_key(name: &str) -> Option<Vec<String>> {
    let key = name.strip_prefix(VARIABLE_PREFIX)?.to_ascii_lowercase();
    let names: Vec<String> = key.split("__").map(str::to_owned).collect();
    (names.len() > 1 && names.iter().all(|n| !n.is_empty())).then_some(names)
}

/// A dotted key, by TOML's own rules: `models."llama-3.2".device`.
fn flag_key(key: &str) -> Option<Vec<String>> {
    let line = format!("{key} = 0");
    let mut table = DeTable::parse(&line).ok()?.into_inner();
    let mut names = Vec::new();
    while let Some((name, value)) = std::mem::take(&mut table).into_iter().next() {
        names.push(name.into_inner().into_owned());
        if let toml::de::DeValue::Table(deeper) = value.into_inner() {
            table = deeper;
        }
    }
    // A line break in the key would have smuggled in a second one.
    (!key.contains('\n')).then_some(names)
}

/// Sets the value at `key`, making the tables on the way.
fn set(
    tree: &mut Node,
    key: &[String],
    spelling: Spelling,
    value: &str,
    origin: &Origin,
) -> Result<(), Problem> {
    if let (Some(first), Content::Table(table)) = (key.first(), &mut tree.content)
        && LISTS.contains(&first.as_str())
    {
        // So that an entry that does not exist is said to be missing, rather than the list to be a table.
        let empty = Node::new(origin.clone(), Content::List(Vec::new()));
        table.entry(first.clone()).or_insert_with(|| Entry { key: origin.clone(), node: empty });
    }
    let mut node = tree;
    for (depth, name) in key.iter().enumerate() {
        let parent = || key[..depth].join(".");
        node =
            match &mut node.content {
                Content::Table(table) => {
                    let known = table.keys().find(|known| spelling.matches(name, known));
                    let name = known.unwrap_or(name).clone();
                    let made =
                        || Entry { key: origin.clone(), node: Node::new(origin.clone(), Content::default()) };
                    &mut table.entry(name).or_insert_with(made).node
                }
                Content::List(list) => {
                    let by_id = list.iter().position(|n| n.id().is_some_and(|id| spelling.matches(name, id)));
                    let index = by_id.or_else(|| name.parse().ok().filter(|i| *i < list.len()));
                    let Some(index) = index else {
                        let ids = list.iter().filter_map(Node::id);
                        let what = format!("`{}` has no entry `{name}`", parent());
                        return Err(Problem::new("config-unknown-reference", origin, what)
                            .help(suggest::help(name, "its entries", ids.collect::<Vec<_>>())));
                    };
                    &mut list[index]
                }
                _ => {
                    let what = format!("`{}` is a single value and has no key `{name}`", parent());
                    return Err(Problem::new("config-unknown-key", origin, what));
                }
            };
    }
    *node = Node::new(origin.clone(), Content::Untyped(value.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_two_underscores_are_keys() {
        let key = |name: &str| variable_key(name).map(|names| names.join("."));
        assert_eq!(key("PAJAMAS_SERVER__LISTEN").as_deref(), Some("server.listen"));
        assert_eq!(key("PAJAMAS_MODELS__CHAT__OPTIONS__N_CTX").as_deref(), Some("models.chat.options.n_ctx"));
        for other in ["PAJAMAS_CONFIG", "PAJAMAS_LOG", "SERVER__LISTEN", "PAJAMAS___X", "PAJAMAS_A__"] {
            assert_eq!(key(other), None, "{other}");
        }
    }

    #[test]
    fn flags_spell_keys_as_toml_does() {
        assert_eq!(flag_key("models.\"llama-3.2\".device").unwrap(), ["models", "llama-3.2", "device"]);
        for bad in ["", "a..b", "a b", "a = 1\nb", "a]"] {
            assert!(flag_key(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_file_is_searched_for_in_the_documented_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "schema = 1\n").unwrap();
            path
        };
        let home = root.join("home").display().to_string();
        let mut options = LoadOptions {
            folder: root.join("work"),
            environment: vec![("HOME".to_owned(), home)],
            ..LoadOptions::default()
        };
        let found = |options: &LoadOptions| options.find_file().unwrap();
        assert_eq!(found(&options), None);
        let expected = write("home/.config/pajamas/pajamas.toml");
        assert_eq!(found(&options), Some(expected));
        let expected = write("xdg/pajamas/pajamas.toml");
        options.environment.push(("XDG_CONFIG_HOME".to_owned(), root.join("xdg").display().to_string()));
        assert_eq!(found(&options), Some(expected));
        let expected = write("work/pajamas.toml");
        assert_eq!(found(&options), Some(expected));
        let expected = write("work/env.toml");
        options.environment.push((FILE_VARIABLE.to_owned(), "env.toml".to_owned()));
        assert_eq!(found(&options), Some(expected));
        let expected = write("work/flag.toml");
        options.file = Some("flag.toml".into());
        assert_eq!(found(&options), Some(expected));
    }
}
