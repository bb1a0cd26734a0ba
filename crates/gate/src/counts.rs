//! Counts the instructions of single operations: `examples/instructions.rs` under valgrind's callgrind.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use certseal_gate::{Machine, instructions_collected, instructions_per_operation};

use crate::workspace::workspace;

/// Instructions of one run of each operation. Builds the harness first.
pub(crate) fn measure() -> Result<BTreeMap<String, u64>> {
    let harness = harness()?;
    eprintln!("counting instructions");
    // All at once: other work of the machine changes no count.
    thread::scope(|scope| {
        let counting = OPERATIONS.map(|name| (name, scope.spawn(|| of_one(&harness, name))));
        let counted = |(name, thread): (&str, thread::ScopedJoinHandle<'_, _>)| {
            let count: Result<u64> = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            Ok((name.to_owned(), count.with_context(|| format!("counting the instructions of {name}"))?))
        };
        counting.into_iter().map(counted).collect()
    })
}

/// The machine that the counts hold for.
pub(crate) fn machine() -> Result<Machine> {
    let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let value = |wanted: &str| {
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    let shown = |key| value(key).unwrap_or("unknown");
    let cpu = format!("{}, family {}, model {}", shown("model name"), shown("cpu family"), shown("model"));
    Ok(Machine { cpu, rustc: version("rustc")?, valgrind: version("valgrind")? })
}

/// The cargo that runs the gate, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

fn of_one(harness: &Path, operation: &str) -> Result<u64> {
    let [fewer, more] = REPEATS.map(|repeats| Ok((repeats, collected(harness, operation, repeats)?)));
    fewer.and_then(|fewer| Ok(instructions_per_operation(fewer, more?)?))
}

fn collected(harness: &Path, operation: &str, repeats: u64) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--error-exitcode=1", "--toggle-collect=*measured_repeatedly*"])
        .arg(format!("--callgrind-out-file={}", file.path().display()))
        .arg(harness)
        .args([operation, &repeats.to_string()])
        .stdin(Stdio::null())
        .output()
        .context(VALGRIND)?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(instructions_collected(&fs::read_to_string(file.path())?)?)
}

/// Builds the harness as it is measured: optimized.
fn harness() -> Result<PathBuf> {
    let output = cargo()
        .args(["build", "--release", "--locked", "--package", "certseal-gate", "--example", "instructions"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(io::stderr())
        .output()
        .context("could not start cargo")?;
    ensure!(output.status.success(), "the harness could not be built");
    let built = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_harness = message["target"]["name"] == "instructions";
        is_harness.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    let messages = String::from_utf8(output.stdout)?;
    messages.lines().find_map(built).context("cargo named no executable of the harness")
}

fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().with_context(|| match program {
        "valgrind" => VALGRIND.to_owned(),
        _ => program.to_owned(),
    })?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The operations that `examples/instructions.rs` knows.
const OPERATIONS: [&str; 6] =
    ["open-p256", "open-x25519", "seal-p256", "verify-envelope", "verify-bundle", "resolve-warm"];

/// Two numbers of repeats, whose difference counts.
const REPEATS: [u64; 2] = [50, 250];

const VALGRIND: &str = "could not start valgrind: tests/tools.sh installs it";
