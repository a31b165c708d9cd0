//! What the build needs from the system: found, or installed, or named with the command that installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::progress::{self, Show};
use crate::project::{Project, tool};

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

/// The package managers whose commands are known. Only apt is run from here: the others are named.
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

    /// The command that a person types to install `missing`.
    fn command(self, missing: &[Need]) -> String {
        let mut packages: Vec<_> = missing.iter().map(|need| need.package(self)).collect();
        packages.dedup();
        let packages = packages.join(" ");
        match self {
            Self::Apt => format!("sudo apt-get update && sudo apt-get install --yes {packages}"),
            Self::Dnf => format!("sudo dnf install {packages}"),
            Self::Pacman => format!("sudo pacman -S --needed {packages}"),
            // Apple's command line tools bring make, the compiler and libclang.
            Self::Brew if missing == [Need::Cmake] => "brew install cmake".to_owned(),
            Self::Brew if missing.contains(&Need::Cmake) => {
                "xcode-select --install && brew install cmake".to_owned()
            }
            Self::Brew => "xcode-select --install".to_owned(),
        }
    }
}

/// Makes sure that all the build needs is there. Says nothing when it is.
///
/// # Errors
/// When something is missing and cannot be installed from here: names the command that does.
pub fn ensure(project: &Project) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let manager = Manager::of_this_machine();
    if manager == Some(Manager::Apt)
        && let Some(as_root) = as_root()
    {
        install_by_apt(project, &as_root, &missing)?;
    }
    let still: Vec<_> = self::missing();
    if still.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = still.iter().map(|need| need.name()).collect();
    let advice = manager.map_or_else(
        || "install them as your system does, then run the command again".to_owned(),
        |manager| format!("install with:\n    {}", manager.command(&still)),
    );
    bail!("missing on this machine: {}\n{advice}", names.join(", "));
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

fn install_by_apt(project: &Project, as_root: &[&str], missing: &[Need]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let words: Vec<_> = as_root
            .iter()
            .copied()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"])
            .chain(arguments.iter().copied())
            .collect();
        let mut command = tool(words[0], &project.root);
        command.args(&words[1..]);
        command
    };
    let packages: Vec<_> = missing.iter().map(|need| need.package(Manager::Apt)).collect();
    // A failing update is not the end: what is known may suffice, and the install says what is missing.
    let _ = progress::run(
        "Reading the list of packages",
        &mut apt(&["update"]),
        &project.log("apt-update"),
        Show::Progress,
    );
    let install: Vec<_> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    progress::run(
        &format!("Installing {}", packages.join(", ")),
        &mut apt(&install),
        &project.log("apt-install"),
        Show::Progress,
    )?;
    Ok(())
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
            Manager::Apt.command(&[Need::Cmake, Need::Libclang]),
            "sudo apt-get update && sudo apt-get install --yes cmake libclang-dev"
        );
        assert_eq!(Manager::Brew.command(&[Need::Cmake]), "brew install cmake");
        assert_eq!(Manager::Brew.command(&[Need::CxxCompiler, Need::Libclang]), "xcode-select --install");
    }

    #[test]
    fn finds_nothing_that_is_not_there() {
        assert!(!starts("no-such-program-anywhere"));
    }
}
