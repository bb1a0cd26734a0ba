//! Progress on standard error, hidden where that is no terminal.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use certseal_client::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// A spinner, hidden by itself where standard error is no terminal, and cleared when it is dropped.
pub(crate) fn spinner(output: Output) -> ProgressBar {
    let spinner = if output.is_json() { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    spinner.enable_steady_tick(TICK);
    spinner
}

/// A progress bar with its rate, on standard error; hidden where that is no terminal.
pub(crate) struct Bar {
    bar: Mutex<ProgressBar>,
    hidden: bool,
}

impl Bar {
    pub(crate) fn new(output: Output) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), hidden: output.is_json() }
    }

    pub(crate) fn clear(&self) {
        self.current().finish_and_clear();
    }

    /// Does what prints, without the bar in its way.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.current().suspend(print)
    }

    fn current(&self) -> ProgressBar {
        // A handle; the lock is held for assignments only.
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        if self.hidden {
            return;
        }
        self.clear();
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {per_sec}"),
            _ => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style).with_message(what.to_owned());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn advance(&self, items: u64) {
        self.current().inc(items);
    }

    fn waiting(&self, what: &str) {
        if self.hidden {
            return;
        }
        let message = format!("waiting for {what}");
        let bar = self.current();
        if bar.is_hidden() || bar.length().is_some() {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(TICK);
            *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = spinner;
        }
        self.current().set_message(message);
    }
}

/// From one picture of a spinner to the next.
const TICK: Duration = Duration::from_millis(120);
