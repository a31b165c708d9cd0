//! The `pajamas` command.

fn main() -> std::process::ExitCode {
    pajamas::cli::main()
}
