//! The `pajamas` command.

fn main() -> std::process::ExitCode {
    // Libraries that plugins open may report home unless they are told not to before they are: ONNX Runtime gives the
    // machine an id and keeps what it will send in the user's cache folder.
    // SAFETY: this is the program's first statement: no other thread is there to look at the environment.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    pajamas::cli::main()
}
