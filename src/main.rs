//! The program: a door to the library.

fn main() -> std::process::ExitCode {
    partywall::cli::main()
}
