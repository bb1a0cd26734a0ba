//! Pictures of a report, as SVG.

use std::fmt::Write as _;

use certseal_issuance::Lane;

use crate::report::Report;

/// A picture, and the name of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The name without its ending.
    pub name: &'static str,
    /// The SVG document.
    pub svg: String,
}

/// The pictures of a report.
pub fn pictures(report: &Report) -> Vec<Picture> {
    let days = |value: fn(&crate::report::Day) -> f64| -> Vec<f64> { report.per_day.iter().map(value).collect() };
    let lanes = |of: &dyn Fn(usize) -> Vec<f64>| -> Vec<Line> {
        Lane::ALL.into_iter().map(|lane| Line { name: lane.as_str(), values: of(lane as usize) }).collect()
    };
    // Each day's busiest hour: a year of hours is more than a picture shows.
    let busiest = |lane: usize| {
        let hours: Vec<u64> = report.orders_per_hour.iter().map(|hour| hour[lane]).collect();
        hours.chunks(24).map(|day| day.iter().copied().max().unwrap_or(0) as f64).collect()
    };
    let backlog = |lane: usize| report.per_day.iter().map(|day| day.backlog[lane] as f64).collect();
    let mut pictures = vec![
        picture("orders-per-hour", "Orders in an hour, the busiest of each day", &lanes(&busiest)),
        picture("backlog", "Sites that wait for a worker", &lanes(&backlog)),
        picture(
            "sites",
            "Sites with a certificate",
            &[
                Line { name: "valid", values: days(|day| day.valid as f64) },
                Line { name: "ended", values: days(|day| day.ended as f64) },
            ],
        ),
        picture(
            "remaining-lifetime",
            "The least part of its lifetime that a certificate has left",
            &[Line { name: "least", values: days(|day| day.least_remaining) }],
        ),
    ];
    if report.per_day.iter().any(|day| day.new_orders_left.is_some()) {
        let left = days(|day| day.new_orders_left.map_or(0.0, f64::from));
        let line = Line { name: "new orders left", values: left };
        pictures.push(picture("budget", "New orders that could be placed at once", &[line]));
    }
    pictures
}

struct Line {
    name: &'static str,
    values: Vec<f64>,
}

/// A chart with one line for each series that is not all nothing.
fn picture(name: &'static str, title: &str, lines: &[Line]) -> Picture {
    let shown: Vec<&Line> = lines.iter().filter(|line| line.values.iter().any(|value| *value > 0.0)).collect();
    let most = shown.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
    let top = if most > 0.0 { most } else { 1.0 };
    let days = lines.iter().map(|line| line.values.len()).max().unwrap_or(1).max(2) - 1;
    let x = |day: usize| LEFT + (WIDTH - LEFT - RIGHT) * day as f64 / days as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{title}</text>\n"
    );
    // Text into a string never fails.
    let mut add = |part: String| {
        let _ = writeln!(svg, "{part}");
    };
    for quarter in 0..=4 {
        let value = top * f64::from(quarter) / 4.0;
        let at = y(value);
        let right = WIDTH - RIGHT;
        add(format!("<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
        let (label_x, label_y) = (LEFT - 6.0, at + 4.0);
        add(format!("<text x=\"{label_x}\" y=\"{label_y:.1}\" text-anchor=\"end\">{}</text>", short(value)));
    }
    for tenth in 0..=10 {
        let day = days * tenth / 10;
        let (at, bottom) = (x(day), HEIGHT - BOTTOM + 18.0);
        add(format!("<text x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{day}</text>"));
    }
    let below = HEIGHT - 6.0;
    add(format!("<text x=\"{}\" y=\"{below}\" text-anchor=\"middle\">day</text>", WIDTH / 2.0));
    for (number, line) in shown.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let points = line.values.iter().enumerate().map(|(day, value)| format!("{:.1},{:.1}", x(day), y(*value)));
        let points = points.collect::<Vec<_>>().join(" ");
        add(format!("<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" points=\"{points}\"/>"));
        let (at, row) = (WIDTH - RIGHT + 10.0, TOP + 16.0 * (number as f64 + 1.0));
        add(format!("<text x=\"{at}\" y=\"{row}\" fill=\"{color}\">{}</text>", line.name));
    }
    svg.push_str("</svg>\n");
    Picture { name, svg }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{:.1} M", value / 1_000_000.0),
        value if value >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 44.0;
const COLORS: [&str; 6] = ["#b2182b", "#d6802b", "#2166ac", "#1b7837", "#762a83", "#555555"];
