//! `cargo gate`: measures what a release must keep to, compares it with the committed bars, and fails on a miss.
//!
//! Exit status: 0 when every bar is kept, 1 when one is missed, 2 when it could not be measured.

mod benches;
mod counts;
mod workspace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use certseal_gate::{Bars, Baseline, Report};
use clap::Parser;

use workspace::workspace;

/// Compares what this build costs with the bars for a release.
#[derive(Parser)]
#[command(name = "cargo gate", bin_name = "cargo gate", version)]
struct Arguments {
    /// Only count instructions: no quiet machine is needed for that
    #[arg(long, conflicts_with = "bless")]
    quick: bool,
    /// Count instructions, and make the counts the baseline
    #[arg(long, conflicts_with = "out")]
    bless: bool,
    /// Where to write the verdicts as JSON [default: target/gate.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo gate: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bar was kept.
fn run(arguments: &Arguments) -> Result<bool> {
    if !arguments.quick && !arguments.bless {
        warn_of_load();
    }
    let (counts, machine) = (counts::measure()?, counts::machine()?);
    if arguments.bless {
        let baseline = Baseline { measured_on: machine, instructions: counts };
        write(&workspace().join(BASELINE), &baseline)?;
        eprintln!("{BASELINE} is written: commit it, and say in the commit what has changed");
        return Ok(true);
    }
    let mut verdicts = Baseline::parse(&read(BASELINE)?)?.judge(&counts, &machine)?;
    if !arguments.quick {
        let bars = Bars::parse(&read(BARS)?)?;
        for bench in bars.benches() {
            verdicts.extend(benches::judge(&bars, bench)?);
        }
    }
    let report = Report::new(machine, verdicts);
    print!("{report}");
    write(arguments.out.as_deref().unwrap_or(&workspace().join("target/gate.json")), &report)?;
    Ok(report.passed())
}

/// Ratios of a busy machine are less steady, and what waits for the disk waits for other programs as well.
fn warn_of_load() {
    let load = fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > 0.5) {
        eprintln!("the machine is busy (load {load}): ratios mean more on one that does nothing else");
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(workspace().join(path)).with_context(|| path.to_owned())
}

fn write(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)? + "\n";
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::write(path, json).with_context(|| path.display().to_string())
}

const BARS: &str = "benches/bars.toml";
const BASELINE: &str = "benches/instructions.json";
