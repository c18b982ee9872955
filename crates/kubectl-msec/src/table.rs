//! Rows of text for people and for pipes.
//!
//! On a terminal: aligned columns, wide characters counted as such (Unicode UAX #11), states in colour. In a pipe: the
//! same cells with tabs between them, so that `cut` finds each of them. `-o table` and `-o wide` align in a
//! pipe, too.

use std::io::IsTerminal as _;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use managed_secrets_cli::say::visible;
use unicode_width::UnicodeWidthStr as _;

/// How a table is laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    /// Pad cells, so that columns line up.
    pub(super) aligned: bool,
    /// Show states in colour.
    pub(super) coloured: bool,
}

impl Layout {
    /// What standard output takes; `aligned` was asked for in words.
    pub(super) fn of_standard_output(aligned: bool) -> Self {
        let out = std::io::stdout();
        // Knows NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM=dumb.
        let coloured = AutoStream::choice(&out) != ColorChoice::Never;
        Self { aligned: aligned || out.is_terminal(), coloured }
    }
}

/// Columns and rows; each row has a cell a column.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Table {
    /// Names of the columns.
    pub(super) columns: Vec<String>,
    /// The rows.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as text, a line a row.
    pub(super) fn render(&self, layout: Layout) -> String {
        let widths: Vec<_> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        let header = self.line(&self.columns, &widths, layout, |_| Style::new());
        let rows = self.rows.iter().map(|row| self.line(row, &widths, layout, state));
        std::iter::once(header).chain(rows).collect()
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.chain(self.columns.get(column)).map(|cell| visible(cell).width()).max().unwrap_or_default()
    }

    fn line(&self, cells: &[String], widths: &[usize], layout: Layout, style: impl Fn(&str) -> Style) -> String {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let text = visible(cell);
            let style = if layout.coloured { style(&text) } else { Style::new() };
            line.extend([style.render().to_string(), text.clone(), style.render_reset().to_string()]);
            if at + 1 == self.columns.len() {
                break;
            }
            if layout.aligned {
                let width = widths.get(at).copied().unwrap_or_default();
                line.push_str(&" ".repeat(width.saturating_sub(text.width()) + 3));
            } else {
                line.push('\t');
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line.push('\n');
        line
    }
}

/// The colour of a cell that is a condition's status.
fn state(cell: &str) -> Style {
    match cell {
        "True" => AnsiColor::Green.on_default(),
        "False" => AnsiColor::Red.on_default(),
        "Unknown" => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// How long ago, in the largest unit that fits, as kubectl's AGE.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    let unit = [(86_400, "d"), (3600, "h"), (60, "m")].into_iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let ago = |seconds| age(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap_or_default());
        assert_eq!(
            [0, 59, 119, 120, 7200, 172_800].map(ago),
            ["0s", "59s", "119s", "2m", "2h", "2d"].map(str::to_owned)
        );
        // A clock that is behind the cluster's.
        assert_eq!(age(Timestamp::MAX, Timestamp::UNIX_EPOCH), "0s");
    }

    fn table() -> Table {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        Table {
            columns: row(["NAME", "DESCRIPTION", "READY"]),
            rows: vec![row(["a", "漢字の説明", "True"]), row(["long-name", "e\u{301}té\nline\x1b[31m", "False"])],
        }
    }

    #[test]
    fn wide_and_combining_characters_line_up_and_nothing_breaks_a_line() {
        let text = table().render(Layout { aligned: true, coloured: false });
        assert_eq!(
            text,
            "NAME        DESCRIPTION           READY\na           漢字の説明            True\nlong-name   e\u{301}té\\nline\\u{1b}[31m   False\n"
        );
    }

    #[test]
    fn a_pipe_gets_cells_with_tabs_between_them() {
        let text = table().render(Layout { aligned: false, coloured: false });
        assert_eq!(text.lines().next(), Some("NAME\tDESCRIPTION\tREADY"));
        assert!(text.lines().all(|line| line.split('\t').count() == 3));
    }

    #[test]
    fn colours_add_nothing_but_colours() {
        let coloured = table().render(Layout { aligned: true, coloured: true });
        assert!(coloured.contains("\x1b[32mTrue\x1b[0m"));
        let stripped = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(stripped, table().render(Layout { aligned: true, coloured: false }));
    }
}
