//! Figures with their goals, as a table and as JSON.

use std::{fmt, fs, path::Path};

use serde::Serialize;
use serde_json::json;
use testkit::{Error, Result, error::Context};

use crate::stats::{Spread, paired};

/// What a figure is compared with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Comparison {
    /// Nothing: the figure speaks for itself.
    None,
    /// Measured by baseline.
    Ratio { to: &'static str, baseline: Vec<f64> },
    /// Measured minus baseline.
    Added { to: &'static str, baseline: Vec<f64> },
}

/// What the median of the comparison must be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Nothing: the figure is reported.
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Not further than this from 1.
    Within(f64),
    /// In every repetition.
    Exactly(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The row of the benchmark that it belongs to.
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// One for each repetition.
    pub(crate) measured: Vec<f64>,
    pub(crate) comparison: Comparison,
    pub(crate) goal: Goal,
}

impl Figure {
    /// A figure that is reported, without comparison or goal.
    pub(crate) fn new(row: &'static str, what: impl Into<String>, unit: &'static str, measured: Vec<f64>) -> Self {
        Self { row, what: what.into(), unit, measured, comparison: Comparison::None, goal: Goal::None }
    }

    pub(crate) fn against(self, comparison: Comparison) -> Self {
        Self { comparison, ..self }
    }

    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    /// The values that the goal is about.
    fn compared(&self) -> Vec<f64> {
        match &self.comparison {
            Comparison::None => self.measured.clone(),
            Comparison::Ratio { baseline, .. } => paired(&self.measured, baseline, |measured, base| measured / base),
            Comparison::Added { baseline, .. } => paired(&self.measured, baseline, |measured, base| measured - base),
        }
    }

    /// Whether the goal is met; none if there is no goal. A figure without a value meets no goal.
    pub(crate) fn met(&self) -> Option<bool> {
        let compared = self.compared();
        let median = Spread::of(&compared).map_or(f64::NAN, |spread| spread.median);
        match self.goal {
            Goal::None => None,
            Goal::AtLeast(goal) => Some(median >= goal),
            Goal::AtMost(goal) => Some(median <= goal),
            Goal::Within(goal) => Some((median - 1.0).abs() <= goal),
            Goal::Exactly(goal) => {
                Some(!compared.is_empty() && compared.iter().all(|value| (value - goal).abs() < f64::EPSILON))
            }
        }
    }
}

/// Whether an exact goal, such as a number of requests, is missed.
pub(crate) fn is_wrong(figure: &Figure) -> bool {
    matches!(figure.goal, Goal::Exactly(_)) && figure.met() == Some(false)
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = *self;
        if (max - min).abs() < f64::EPSILON {
            return write!(out, "{}", number(median));
        }
        write!(out, "{} ({} to {})", number(median), number(min), number(max))
    }
}

/// Three significant digits, and all digits before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn spread(values: &[f64]) -> String {
    Spread::of(values).map_or_else(|| "-".to_owned(), |spread| spread.to_string())
}

/// The columns of the table.
const HEAD: [&str; 6] = ["figure", "measured: median (min to max)", "baseline", "compared", "goal", ""];

/// The table, in Markdown.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(figures.iter().map(line));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let print = |line: &[String; HEAD.len()]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("| {cell:<width$} "));
        cells.collect::<String>() + "|\n"
    };
    let rule = widths.map(|width| "-".repeat(width));
    lines.iter().take(1).chain([&rule]).chain(lines.iter().skip(1)).map(print).collect()
}

fn line(figure: &Figure) -> [String; HEAD.len()] {
    let unit = figure.unit;
    let (baseline, compared) = match &figure.comparison {
        Comparison::None => (String::new(), String::new()),
        Comparison::Ratio { to, baseline } => {
            (format!("{} {unit}: {to}", spread(baseline)), format!("{} times", spread(&figure.compared())))
        }
        Comparison::Added { to, baseline } => {
            (format!("{} {unit}: {to}", spread(baseline)), format!("{} {unit} more", spread(&figure.compared())))
        }
    };
    let goal = match figure.goal {
        Goal::None => String::new(),
        Goal::AtLeast(goal) => format!(">= {}", number(goal)),
        Goal::AtMost(goal) => format!("<= {}", number(goal)),
        Goal::Within(goal) => format!("1 ± {}", number(goal)),
        Goal::Exactly(goal) => format!("= {}", number(goal)),
    };
    let met = figure.met().map_or("", |met| if met { "met" } else { "not met" });
    let what = format!("{}: {}", figure.row, figure.what);
    [what, format!("{} {unit}", spread(&figure.measured)), baseline, compared, goal, met.to_owned()]
}

/// Writes the figures with all repetitions, and what they were measured on.
pub(crate) fn write(folder: &Path, figures: &[Figure]) -> Result<()> {
    fs::create_dir_all(folder).context("create", folder)?;
    let figure = |figure: &Figure| json!({"figure": figure, "met": figure.met()});
    let report = json!({
        "machine": {"cores": std::thread::available_parallelism().map_or(0, usize::from)},
        "optimised": !cfg!(debug_assertions),
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
    });
    let path = folder.join("figures.json");
    let text = serde_json::to_string_pretty(&report)
        .map_err(|error| Error::Format { what: "the figures".to_owned(), why: error.to_string() })?;
    fs::write(&path, text).context("write", &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(measured: &[f64], comparison: Comparison, goal: Goal) -> Figure {
        Figure::new("row", "what", "s", measured.to_vec()).against(comparison).goal(goal)
    }

    #[test]
    fn a_goal_is_about_the_median_of_the_comparison() {
        let ratio = |measured: &[f64]| {
            let baseline = vec![2.0; measured.len()];
            figure(measured, Comparison::Ratio { to: "limit", baseline }, Goal::AtLeast(0.5)).met()
        };
        assert_eq!(ratio(&[0.1, 1.0, 1.1]), Some(true));
        assert_eq!(ratio(&[0.1, 0.9, 9.0]), Some(false));
        assert_eq!(ratio(&[]), Some(false));
        let added = Comparison::Added { to: "other", baseline: vec![5.0] };
        assert_eq!(figure(&[6.0], added.clone(), Goal::AtMost(1.0)).met(), Some(true));
        assert_eq!(figure(&[6.5], added, Goal::AtMost(1.0)).met(), Some(false));
        assert_eq!(figure(&[6.5], Comparison::None, Goal::None).met(), None);
        let within = |value| figure(&[value], Comparison::None, Goal::Within(0.15)).met();
        assert_eq!([0.8, 0.9, 1.1, 1.2, f64::NAN].map(within), [false, true, true, false, false].map(Some));
    }

    #[test]
    fn an_exact_goal_holds_in_every_repetition() {
        assert!(!is_wrong(&figure(&[3.0, 3.0], Comparison::None, Goal::Exactly(3.0))));
        assert!(is_wrong(&figure(&[3.0, 3.02, 3.0], Comparison::None, Goal::Exactly(3.0))));
        assert!(is_wrong(&figure(&[], Comparison::None, Goal::Exactly(3.0))));
        assert!(!is_wrong(&figure(&[9.0], Comparison::None, Goal::AtMost(3.0))), "only counts are exact");
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let ratio = Comparison::Ratio { to: "bare", baseline: vec![2.0, 2.0] };
        let table = table(&[figure(&[1.0, 4.0], ratio, Goal::AtMost(1.0))]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains("2.50 (1 to 4) s") && lines[2].contains("1.25 (0.500 to 2) times"), "{table}");
        assert!(lines[2].contains("<= 1") && lines[2].ends_with("| not met |"), "{table}");
    }
}
