//! `certctl audit`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use certseal_archive::audit::{self, AuditFiles, AuditPages, FileEntry, Search, mark_text};
use certseal_client::{Progress, StoreClient};
use certseal_seal::{RingMark, ring_issuers};
use certseal_wire::{AuditAction, AuditLine, AuditMark, AuditPage, AuditQuery, AuditRecord};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    output::{Output, details, next_line, or_dash, printable},
    progress_bar::Bar,
    settings::Settings,
    values,
};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the newest entries
    Tail(TailArgs),
    /// Find entries, from the oldest on
    Search(SearchArgs),
    /// Check that no entry was altered, removed or put elsewhere, and that the end is there
    Verify(VerifyArgs),
    /// Write the entries that certstore still keeps, one JSON document on each line
    Export {
        /// New file, or - for standard output
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) lines: u64,
    /// Go on with those that come
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Who did it: ROLE/NAME, or a part of it
    #[arg(long, value_name = "WHO")]
    pub(crate) by: Option<String>,
    /// What it was done to: a site, a pool, a rotation
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,
    /// What was done, such as put-bundle or read-sealed
    #[arg(long, value_name = "ACTION", value_parser = values::action)]
    pub(crate) action: Option<AuditAction>,
    /// At this time or later: an instant such as 2026-11-01T08:00:00Z, or a period before now such as 36h
    #[arg(long, value_name = "TIME", value_parser = values::instant)]
    pub(crate) since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = values::instant)]
    pub(crate) until: Option<Timestamp>,
    /// Only what was refused
    #[arg(long)]
    pub(crate) refused: bool,
    /// Directory of the files with older entries, audit-*.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directory of the files with older entries, audit-*.jsonl
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// What an earlier run printed, and you kept: the log must still have it
    #[arg(long, value_name = "NUMBER:HASH", value_parser = certseal_archive::audit::mark)]
    pub(crate) expect: Option<AuditMark>,
}

pub(super) async fn run(command: AuditCommand, settings: &Settings, output: Output) -> anyhow::Result<()> {
    match command {
        AuditCommand::Tail(args) => tail(&settings.store()?, &args, output).await,
        AuditCommand::Search(args) => search(&settings.store()?, args, output).await,
        AuditCommand::Verify(args) => verify(args, settings, output).await,
        AuditCommand::Export { to } => export(&settings.store()?, &to, output).await,
    }
}

async fn tail(store: &StoreClient, args: &TailArgs, output: Output) -> anyhow::Result<()> {
    let page = store.audit(&AuditQuery { after: None, limit: Some(1) }).await?;
    let mut last = page.head.number.saturating_sub(args.lines).max(page.start.number);
    if !print_header(output)? {
        return Ok(());
    }
    loop {
        let AuditPage { head, entries, .. } = match store.audit(&AuditQuery { after: Some(last), limit: None }).await {
            Ok(page) => page,
            Err(error) if args.follow && error.may_pass() => {
                sleep(POLL).await;
                continue;
            }
            Err(error) => bail!(error),
        };
        ensure!(
            head.number >= last,
            "the log went back from entry {last} to entry {}: the store came back from a backup, or its end was cut off",
            head.number
        );
        for line in &entries {
            ensure!(line.mark.number > last, "certstore answers entry {} after entry {last}", line.mark.number);
            last = line.mark.number;
            if !print(line, output)? {
                return Ok(());
            }
        }
        match (entries.is_empty() || last >= head.number, args.follow) {
            (false, _) => {}
            (true, true) => sleep(POLL).await,
            (true, false) => return Ok(()),
        }
    }
}

async fn search(store: &StoreClient, args: SearchArgs, output: Output) -> anyhow::Result<()> {
    let SearchArgs { by, target, action, since, until, refused, files } = args;
    let search = Search { by, target, action, since, until, refused };
    let mut pages = AuditPages::new(store).await?;
    let bar = Bar::new(output);
    if !print_header(output)? {
        return Ok(());
    }
    if let Some(files) = files {
        let files = AuditFiles::in_dir(&files)?;
        let mut last = files.first().mark.number;
        bar.begin("searching files", pages.head().number.saturating_sub(last));
        for entry in files.entries() {
            let FileEntry { line, place } = entry?;
            last = line.mark.number;
            bar.advance(1);
            if search.matches(&line) && !bar.suspend(|| print(&line, output)).with_context(|| place)? {
                return Ok(());
            }
        }
        // Entries in files may still be in the store.
        pages.go_on_after(last);
    }
    bar.begin("searching", pages.head().number - pages.start().number);
    while let Some(page) = pages.next().await? {
        for line in page.iter().filter(|line| search.matches(line)) {
            if !bar.suspend(|| print(line, output))? {
                return Ok(());
            }
        }
        bar.advance(page.len() as u64);
    }
    bar.clear();
    Ok(())
}

async fn verify(args: VerifyArgs, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let security = settings.security_public_to_trust("checkpoint")?;
    let files = args.files.as_deref().map(AuditFiles::in_dir).transpose()?;
    let (store, bar) = (settings.store()?, Bar::new(output));
    let rings = settings.rings(&store, security)?;
    // Read before the log, which must be as long.
    let checkpoint = match store.audit_checkpoint().await? {
        Some(signed) => {
            let ring =
                rings.existing(RingMark::default()).await.context("certstore has a checkpoint of the audit log")?;
            Some(audit::genuine_checkpoint(&signed, &ring_issuers(&ring))?)
        }
        None => None,
    };
    let outcome = audit::verify(&store, checkpoint, files.as_ref(), args.expect, &bar).await;
    bar.clear();
    let verified = outcome?;
    output.show(&verified, || {
        let checkpoint = verified
            .checkpoint
            .map(|seen| format!("entry {}, signed at {:.0}, {} s ago", seen.number, seen.at, seen.age_seconds));
        let text = details([
            ("entries", format!("{} verified, from entry {} on", verified.entries, verified.after + 1)),
            ("first", or_dash(verified.first_at)),
            ("last", or_dash(verified.last_at)),
            ("checkpoint", or_dash(checkpoint)),
            ("mark", verified.mark.clone()),
        ]);
        let warnings = verified.warnings.iter().map(|warning| format!("\nwarning: {warning}\n"));
        let advice = format!(
            "\nKeep the mark where whoever runs certstore cannot change it, and give it to the next run:\n  \
             certctl audit verify --expect {}\n",
            verified.mark
        );
        text + &warnings.collect::<String>() + &advice
    })
}

async fn export(store: &StoreClient, to: &Path, output: Output) -> anyhow::Result<()> {
    if to == Path::new("-") {
        let mut pages = AuditPages::new(store).await?;
        while let Some(page) = pages.next().await? {
            for line in &page {
                if !next_line(&serde_json::to_string(line)?)? {
                    return Ok(());
                }
            }
        }
        return Ok(());
    }
    let bar = Bar::new(output);
    let outcome = audit::export(store, to, &bar).await;
    bar.clear();
    let audit::Exported { entries, start, head } = outcome?;
    let (start, head) = (mark_text(&start), mark_text(&head));
    output.show(&json!({ "file": to, "entries": entries, "after": start, "mark": head }), || {
        format!("{entries} entries after {start}, up to {head}, written to {}", to.display())
    })
}

/// Prints an entry; as JSON the way it is kept. Whether somebody still reads.
fn print(line: &AuditLine, output: Output) -> anyhow::Result<bool> {
    if output.is_json() { next_line(&serde_json::to_string(line)?) } else { next_line(&printable(&row(line))) }
}

fn print_header(output: Output) -> anyhow::Result<bool> {
    if output.is_json() {
        return Ok(true);
    }
    next_line(&columns(["NUMBER", "AT", "BY", "FROM", "ACTION", "TARGETS", "OUTCOME", "DETAIL"].map(str::to_owned)))
}

fn row(line: &AuditLine) -> String {
    let number = line.mark.number.to_string();
    let Ok(record) = serde_json::from_str::<AuditRecord>(&line.entry) else {
        let entry = line.entry.replace('\n', " ");
        return columns([number, "-".into(), "-".into(), "-".into(), "DAMAGED".into(), "-".into(), "-".into(), entry]);
    };
    let version = record.version.map(|version| format!("version {version}"));
    let detail = [version, record.detail.map(|detail| detail.replace('\n', " "))];
    let detail: Vec<String> = detail.into_iter().flatten().collect();
    columns([
        number,
        format!("{:.0}", record.at),
        record.by,
        or_dash(record.from),
        name(&record.action),
        shortened(&record.targets),
        name(&record.outcome),
        if detail.is_empty() { "-".to_owned() } else { detail.join("; ") },
    ])
}

/// Columns of a fixed width, since the rows to come are not known.
fn columns([number, at, by, from, action, targets, outcome, detail]: [String; 8]) -> String {
    format!("{number:>9}  {at:<20}  {by:<20}  {from:<15}  {action:<20}  {targets:<30}  {outcome:<7}  {detail}")
}

/// The first target, and how many there are besides.
fn shortened(targets: &[String]) -> String {
    match targets {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [one, others @ ..] => format!("{one} +{}", others.len()),
    }
}

/// The name that a value has in JSON.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "-".to_owned(),
    }
}

/// Between two looks for new entries.
const POLL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use certseal_wire::Digest;

    use super::*;

    #[test]
    fn a_row_shows_what_an_entry_says_and_a_damaged_one_as_it_is() {
        let line = |number, entry: &str| {
            let mark = AuditMark { number, hash: Digest([7; 32]) };
            AuditLine { mark, entry: entry.to_owned() }
        };
        let put = r#"{"at":"2026-11-01T08:00:00.123Z","by":"issuer/certman-1","from":"10.0.0.7","action":"put-bundle","targets":["a.example","b.example"],"version":3,"outcome":"done"}"#;
        let lines = [line(1, put), line(2, "nonsense")];
        let words = |line: &AuditLine| row(line).split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(&lines[0]),
            "1 2026-11-01T08:00:00Z issuer/certman-1 10.0.0.7 put-bundle a.example +1 done version 3"
        );
        assert_eq!(words(&lines[1]), "2 - - - DAMAGED - - nonsense");
    }
}
