//! Runs the benches whose ratios have bars.

use std::{fs, io, process::Stdio};

use anyhow::{Context, Result, ensure};
use certseal_gate::{Bars, Ratio, Verdict};

use crate::counts::cargo;

/// Measures `bench` and compares it with its bars. When one is missed, the bench runs twice more, and for all of its bars
/// the median of the three decides: one disturbed run does not fail a release, and one lucky one does not pass it.
pub(crate) fn judge(bars: &Bars, bench: &str) -> Result<Vec<Verdict>> {
    let mut runs = vec![measured(bench)?];
    if bars.judge(bench, &runs)?.iter().any(|verdict| !verdict.passed()) {
        eprintln!("{bench} missed a bar: two more runs, the median decides");
        runs.push(measured(bench)?);
        runs.push(measured(bench)?);
    }
    Ok(bars.judge(bench, &runs)?)
}

fn measured(bench: &str) -> Result<Vec<Ratio>> {
    eprintln!("measuring {bench}");
    let file = tempfile::NamedTempFile::new()?;
    let status = cargo()
        // A filter that nothing matches: the ratios come after criterion's part.
        .args(["bench", "--locked", "--package", "certseal", "--bench", bench, "--", "none"])
        .env("CERTSEAL_BENCH_RATIOS", file.path())
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("could not start cargo")?;
    ensure!(status.success(), "the bench {bench} ended with {status}");
    Ok(Ratio::parse_lines(&fs::read_to_string(file.path())?)?)
}
