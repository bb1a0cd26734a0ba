//! The output of certctl: tables for people, JSON for programs, errors on standard error.

use std::io::{self, ErrorKind, Write};

use certseal_client::ClientError;
use certseal_wire::causes;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::client_error;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value` as one line of JSON, or `text` for people.
    pub(crate) fn show(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { line(&serde_json::to_string(value)?) } else { line(text().trim_end()) }
    }

    /// Prints an error: for programs `{"error": {"message": ..}}`, with the members of the daemon's problem document.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let message = causes(error.as_ref());
        let text = if self.json { error_document(error, message) } else { format!("certctl: {}", printable(&message)) };
        // There is nowhere left to report that standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Prints one line on standard output. That the reader has left, as `head` does, is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    next_line(text).map(drop)
}

/// Prints one line of many on standard output. Whether somebody still reads; there is no need to go on otherwise.
pub(crate) fn next_line(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A table with a header and without lines, easy to cut and to grep.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    render(table, rows)
}

/// A list of names and values.
pub(crate) fn details(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    render(table, rows.into_iter().map(|(name, value)| [format!("{name}:"), value]))
}

/// A value, or a dash where there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Values with commas between them.
pub(crate) fn joined<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

fn render<const N: usize>(mut table: Table, rows: impl IntoIterator<Item = [String; N]>) -> String {
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Text from outside without what could steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn error_document(error: &anyhow::Error, message: String) -> String {
    let mut members = match client_error(error) {
        Some(ClientError::Refused(problem)) => match serde_json::to_value(problem) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        },
        _ => Map::new(),
    };
    members.insert("message".to_owned(), message.into());
    Value::Object(Map::from_iter([("error".to_owned(), Value::Object(members))])).to_string()
}

#[cfg(test)]
mod tests {
    use certseal_wire::{Problem, ProblemKind};

    use super::*;

    #[test]
    fn an_error_document_carries_the_problem_of_the_daemon() {
        let refused = ClientError::Refused(Problem::new(ProblemKind::Conflict, "x"));
        let error = anyhow::Error::new(refused).context("someone was faster");
        assert_eq!(
            error_document(&error, causes(error.as_ref())),
            r#"{"error":{"detail":"x","message":"someone was faster: x (409)","status":409,"type":"urn:certseal:conflict"}}"#
        );
    }

    #[test]
    fn text_from_outside_does_not_reach_the_terminal_as_control_characters() {
        let text = table(["a"], [["\u{1b}[2Jx\r".to_owned()]]);
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }
}
