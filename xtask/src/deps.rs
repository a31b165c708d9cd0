//! What the build needs from the system: found, or installed, or named with the command that installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::progress::{self, Show};
use crate::project::{Project, tool};

/// What C++ is compiled with. `.cargo/config.toml` sets it where `CXXFLAGS` is not set, and says why.
pub const CXXFLAGS: &str = "-fno-tree-dse -fno-dse";

/// Something the build starts or links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Cmake,
    Make,
    CxxCompiler,
    Libclang,
}

impl Need {
    const ALL: [Self; 4] = [Self::Cmake, Self::Make, Self::CxxCompiler, Self::Libclang];

    fn name(self) -> &'static str {
        match self {
            Self::Cmake => "cmake (builds llama.cpp)",
            Self::Make => "make (builds llama.cpp)",
            Self::CxxCompiler => "a C++ compiler (builds llama.cpp)",
            Self::Libclang => "libclang (reads llama.cpp's headers)",
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Cmake => starts(&std::env::var("CMAKE").unwrap_or_else(|_| "cmake".into())),
            Self::Make => starts("make") || starts("ninja"),
            Self::CxxCompiler => starts(&std::env::var("CXX").unwrap_or_else(|_| "c++".into())),
            Self::Libclang => libclang().is_some() && has_clang_headers(),
        }
    }

    fn package(self, manager: Manager) -> &'static str {
        match (manager, self) {
            (_, Self::Cmake) => "cmake",
            (_, Self::Make) => "make",
            (Manager::Apt, Self::CxxCompiler) => "g++",
            (Manager::Apt, Self::Libclang) => "libclang-dev",
            (Manager::Dnf, Self::CxxCompiler) => "gcc-c++",
            (Manager::Dnf, Self::Libclang) => "clang-devel",
            (Manager::Pacman, Self::CxxCompiler) => "gcc",
            (Manager::Pacman, Self::Libclang) => "clang",
            (Manager::Brew, Self::CxxCompiler | Self::Libclang) => "llvm",
        }
    }
}

/// The package managers whose commands are known. Apt and Homebrew are run from here: the others are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Brew,
}

impl Manager {
    fn of_this_machine() -> Option<Self> {
        if cfg!(target_os = "macos") {
            return Some(Self::Brew);
        }
        [("apt-get", Self::Apt), ("dnf", Self::Dnf), ("pacman", Self::Pacman)]
            .into_iter()
            .find_map(|(program, manager)| starts(program).then_some(manager))
    }

    /// The packages of `missing`, each once.
    fn packages(self, missing: &[Need]) -> Vec<&'static str> {
        let mut packages: Vec<_> = missing.iter().map(|need| need.package(self)).collect();
        packages.dedup();
        packages
    }

    /// The command that a person types to install `missing`; `there` says whether Homebrew itself is.
    fn command(self, missing: &[Need], there: bool) -> String {
        let packages = self.packages(missing).join(" ");
        match self {
            Self::Apt => format!("sudo apt-get update && sudo apt-get install --yes {packages}"),
            Self::Dnf => format!("sudo dnf install {packages}"),
            Self::Pacman => format!("sudo pacman -S --needed {packages}"),
            Self::Brew => {
                let mut lines = Vec::new();
                // Apple's command line tools bring make, the compiler and libclang.
                if missing.iter().any(|need| *need != Need::Cmake) {
                    lines.push("xcode-select --install");
                }
                if missing.contains(&Need::Cmake) {
                    if !there {
                        lines.push(HOMEBREW);
                    }
                    lines.push("brew install cmake");
                }
                lines.join("\n    ")
            }
        }
    }

    /// The commands that install `missing` without a question, in this order; none where a person has to. `as_root` stands
    /// before what needs it, and is `None` where nobody may.
    fn unattended(self, missing: &[Need], as_root: Option<&[&'static str]>) -> Vec<Vec<&'static str>> {
        match (self, as_root) {
            (Self::Apt, Some(as_root)) => {
                let apt =
                    ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"];
                let apt = |words: &[&'static str]| [as_root, &apt, words].concat();
                let install = apt(&["install", "--yes", "--no-install-recommends"]);
                vec![apt(&["update"]), [install, self.packages(missing)].concat()]
            }
            // Apple's tools come with a dialogue, and Homebrew works with them only.
            (Self::Brew, _) if missing == [Need::Cmake] => vec![vec!["brew", "install", "cmake"]],
            _ => vec![],
        }
    }
}

/// What <https://brew.sh> says.
const HOMEBREW: &str =
    "/bin/bash -c \"$(curl -fsSL https://raw.githubusercontent.com/Homebrew/install/HEAD/install.sh)\"";

/// Makes sure that all the build needs is there. Says nothing when it is, unless flags of the user's own would make the program
/// crash.
///
/// # Errors
/// When something is missing and cannot be installed from here: names the command that does.
pub fn ensure(project: &Project) -> Result<()> {
    if cfg!(all(target_arch = "x86_64", not(target_os = "macos")))
        && let Ok(flags) = std::env::var("CXXFLAGS")
        && let Some(warning) = trap(&flags)
    {
        progress::warn(&warning);
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(manager) = Manager::of_this_machine() else {
        return named(&missing, "install them as your system does, then run the command again", None);
    };
    let brew = manager == Manager::Brew && starts("brew");
    let mut failed = None;
    if manager != Manager::Brew || brew {
        failed = install(project, &manager.unattended(&missing, as_root().as_deref())).err();
    }
    let still = self::missing();
    let advice = format!("install with:\n    {}", manager.command(&still, brew));
    named(&still, &advice, failed)
}

/// Fails when something is missing, with what to do about it.
fn named(missing: &[Need], advice: &str, failed: Option<anyhow::Error>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|need| need.name()).collect();
    let tried = failed.map(|error| format!("\n{error:#}")).unwrap_or_default();
    bail!("missing on this machine: {}\n{advice}{tried}", names.join(", "));
}

/// Warns of `CXXFLAGS` that somebody set in the place of ours.
fn trap(flags: &str) -> Option<String> {
    let lacking: Vec<_> = CXXFLAGS
        .split(' ')
        .filter(|ours| !flags.split_ascii_whitespace().any(|flag| flag == *ours))
        .collect();
    (!lacking.is_empty()).then(|| {
        format!(
            "CXXFLAGS is set to `{flags}`, without {}: what gcc 12 then makes of llama.cpp dies on processors with AMX. \
             Unset it, or export CXXFLAGS=\"{}\"",
            lacking.join(" "),
            [flags, CXXFLAGS].join(" ").trim()
        )
    })
}

fn missing() -> Vec<Need> {
    Need::ALL.into_iter().filter(|need| !need.is_there()).collect()
}

/// The words before a command that make it run as root without asking; `None` where that cannot be.
fn as_root() -> Option<Vec<&'static str>> {
    let user = Command::new("id").arg("-u").output().ok()?;
    if user.stdout.trim_ascii() == b"0" {
        return Some(vec![]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status().ok()?;
    sudo.success().then(|| vec!["sudo", "-n"])
}

/// Runs the commands. Only the last has to succeed: after a failed update what is known may suffice.
fn install(project: &Project, commands: &[Vec<&str>]) -> Result<()> {
    let mut ended = Ok(());
    for (step, words) in commands.iter().enumerate() {
        let mut command = tool(words[0], &project.root);
        command.args(&words[1..]);
        let label = if step + 1 == commands.len() {
            "Installing what is missing"
        } else {
            "Reading the list of packages"
        };
        let log = project.log(&format!("install-{step}"));
        ended = progress::run(label, &mut command, &log, Show::Progress);
    }
    ended
}

/// Whether a program is there and answers.
fn starts(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// libclang where bindgen will look for it.
fn libclang() -> Option<PathBuf> {
    let named = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    if let Some(path) = &named
        && path.is_file()
    {
        return named;
    }
    let mut folders: Vec<PathBuf> = named.into_iter().collect();
    folders.extend(LIBCLANG_FOLDERS.iter().map(PathBuf::from));
    for parent in ["/usr/lib", "/usr/local", "/opt/homebrew/opt", "/usr/local/opt"] {
        folders.extend(children(Path::new(parent)).filter_map(|folder| {
            let name = folder.file_name()?.to_str()?;
            (name.starts_with("llvm") || name.ends_with("-linux-gnu"))
                .then(|| if name.starts_with("llvm") { folder.join("lib") } else { folder.clone() })
        }));
    }
    folders.iter().flat_map(|folder| children(folder)).find(|path| is_libclang(path))
}

const LIBCLANG_FOLDERS: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/Library/Developer/CommandLineTools/usr/lib",
    "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    "C:\\Program Files\\LLVM\\bin",
];

fn is_libclang(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        let stem = name.strip_prefix("lib").unwrap_or(name);
        // The C++ library of clang, `libclang-cpp`, is another one.
        stem.strip_prefix("clang").is_some_and(|rest| {
            let rest = rest.trim_start_matches(|c: char| c == '-' || c == '.' || c.is_ascii_digit());
            rest == "so" || rest.starts_with("so.") || rest == "dylib" || rest == "dll"
        })
    })
}

/// The headers that libclang brings itself (`stddef.h` and the like): on Linux they are another package, without
/// which it reads nothing.
fn has_clang_headers() -> bool {
    let folders = children(Path::new("/usr/lib"))
        .chain(children(Path::new("/usr/lib64")))
        .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("llvm")))
        .map(|folder| folder.join("lib"))
        .chain(LIBCLANG_FOLDERS.iter().map(PathBuf::from));
    let mut versions = folders.flat_map(|folder| children(&folder.join("clang")).collect::<Vec<_>>());
    std::env::var_os("LIBCLANG_PATH").is_some()
        || !cfg!(target_os = "linux")
        || versions.any(|version| version.join("include/stddef.h").is_file())
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_libclang_by_its_names() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so.1", "libclang.dylib", "libclang.dll"] {
            assert!(is_libclang(Path::new(name)), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclangAST.a", "clang", "libc.so.6", "libclang_rt.so"] {
            assert!(!is_libclang(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn names_the_exact_command() {
        assert_eq!(
            Manager::Apt.command(&[Need::Cmake, Need::Libclang], false),
            "sudo apt-get update && sudo apt-get install --yes cmake libclang-dev"
        );
        assert_eq!(Manager::Brew.command(&[Need::Cmake], true), "brew install cmake");
        assert_eq!(
            Manager::Brew.command(&[Need::CxxCompiler, Need::Libclang], true),
            "xcode-select --install"
        );
        let all = Manager::Brew.command(&Need::ALL, false);
        let lines: Vec<_> = all.lines().map(str::trim).collect();
        assert_eq!(lines, ["xcode-select --install", HOMEBREW, "brew install cmake"]);
    }

    #[test]
    fn installs_only_what_needs_no_answer() {
        let install =
            |commands: Vec<Vec<&str>>| commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>();
        let missing = [Need::Cmake, Need::CxxCompiler];
        let root = install(Manager::Apt.unattended(&missing, Some(&[])));
        assert!(root[0].ends_with("apt-get -o DPkg::Lock::Timeout=120 update"), "{root:?}");
        assert!(root[1].ends_with("install --yes --no-install-recommends cmake g++"), "{root:?}");
        let sudo = install(Manager::Apt.unattended(&missing, Some(&["sudo", "-n"])));
        assert!(sudo.len() == 2 && sudo.iter().all(|line| line.starts_with("sudo -n env ")), "{sudo:?}");
        // A sudo that asks for a password, and what comes with a dialogue, are left to a person.
        assert_eq!(install(Manager::Apt.unattended(&missing, None)), [""; 0]);
        assert_eq!(install(Manager::Brew.unattended(&missing, None)), [""; 0]);
        assert_eq!(install(Manager::Brew.unattended(&[Need::Cmake], None)), ["brew install cmake"]);
        assert_eq!(install(Manager::Dnf.unattended(&missing, Some(&[]))), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_refused_with_advice_and_what_was_tried() {
        named(&[], "nothing", Some(anyhow::anyhow!("nothing"))).unwrap();
        let error = named(&[Need::Cmake], "brew install cmake", Some(anyhow::anyhow!("no network")));
        assert_eq!(
            error.unwrap_err().to_string(),
            "missing on this machine: cmake (builds llama.cpp)\nbrew install cmake\nno network"
        );
    }

    #[test]
    fn flags_in_the_place_of_ours_are_warned_of() {
        assert_eq!(trap(CXXFLAGS), None);
        assert_eq!(trap(&format!("-O2  {CXXFLAGS} -g")), None);
        let warning = trap("-O2 -fno-dse").unwrap();
        assert!(warning.contains("without -fno-tree-dse:"), "{warning}");
        assert!(warning.contains("export CXXFLAGS=\"-O2 -fno-dse -fno-tree-dse -fno-dse\""), "{warning}");
        assert!(trap("").unwrap().contains(&format!("export CXXFLAGS=\"{CXXFLAGS}\"")));
    }

    #[test]
    fn the_flags_are_those_of_cargos_configuration() {
        let config = include_str!("../../.cargo/config.toml");
        assert!(config.contains(&format!("CXXFLAGS = \"{CXXFLAGS}\"")), "{config}");
    }

    #[test]
    fn finds_nothing_that_is_not_there() {
        assert!(!starts("no-such-program-anywhere"));
    }
}
