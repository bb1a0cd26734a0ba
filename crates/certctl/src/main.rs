//! The `certctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    certctl::main()
}
