//! Ratios on a machine that is not quiet: the cases take turns, and medians over the turns are compared.

use std::{
    env,
    fs::File,
    hint::black_box,
    io::Write,
    time::{Duration, Instant},
};

/// One operation to time, under its name.
pub(crate) struct Case<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
    times: Vec<Duration>,
}

/// How long one turn takes, about.
const TURN: Duration = Duration::from_millis(10);

impl<'a> Case<'a> {
    pub(crate) fn new<T>(name: &'static str, mut run: impl FnMut() -> T + 'a) -> Self {
        Self { name, run: Box::new(move || drop(black_box(run()))), times: Vec::new() }
    }

    fn time(&mut self, repeats: u32) -> Duration {
        let begun = Instant::now();
        for _ in 0..repeats {
            (self.run)();
        }
        begun.elapsed() / repeats
    }
}

/// Times the cases in turn, `rounds` times each. Answers the median of each, by name.
pub(crate) fn alternate(mut cases: Vec<Case<'_>>, rounds: usize) -> Medians {
    let repeats: Vec<u32> = cases
        .iter_mut()
        .map(|case| {
            case.time(1);
            let once = case.time(3).max(Duration::from_nanos(1));
            u32::try_from(TURN.as_nanos() / once.as_nanos()).unwrap().max(1)
        })
        .collect();
    for _ in 0..rounds {
        for (case, repeats) in cases.iter_mut().zip(&repeats) {
            let time = case.time(*repeats);
            case.times.push(time);
        }
    }
    Medians::of(cases.into_iter().map(|case| (case.name, case.times)))
}

/// The median time of each case.
pub(crate) struct Medians(Vec<(&'static str, Duration)>);

impl Medians {
    /// The medians of times that were taken in turn.
    pub(crate) fn of(times: impl IntoIterator<Item = (&'static str, Vec<Duration>)>) -> Self {
        Self(times.into_iter().map(|(name, times)| (name, median(&times))).collect())
    }

    pub(crate) fn print(&self) {
        for (name, time) in &self.0 {
            println!("{name:<40} {time:>12.2?}");
        }
    }

    /// Prints how many times longer `long` takes than `short`, and appends it to the file that the release gate reads.
    pub(crate) fn print_ratio(&self, long: &str, short: &str) {
        let time = |wanted: &str| {
            let (_, time) = self.0.iter().find(|(name, _)| *name == wanted).unwrap();
            time.as_secs_f64()
        };
        let ratio = time(long) / time(short);
        println!("{:<60} {ratio:>8.2}", format!("{long} / {short}"));
        if let Some(file) = env::var_os(RATIOS) {
            let bench = env!("CARGO_CRATE_NAME");
            let line = serde_json::json!({ "bench": bench, "numerator": long, "denominator": short, "value": ratio });
            writeln!(File::options().create(true).append(true).open(file).unwrap(), "{line}").unwrap();
        }
    }
}

/// Names a file: each ratio goes there as a line of JSON.
const RATIOS: &str = "CERTSEAL_BENCH_RATIOS";

/// The middle one of the values, of which there must be one.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    sorted[sorted.len() / 2]
}
