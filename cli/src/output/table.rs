//! Tables as kubectl prints them: upper-case headings, three spaces between columns.

use super::color::{Paint, Palette};
use super::plain;

/// Spaces between columns.
const GAP: usize = 3;

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// In a colour.
    pub fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: plain(text.as_ref()), paint: Some(paint) }
    }

    /// A count: dim when it is zero, else in a colour.
    #[must_use]
    pub fn count(count: u64, paint: Paint) -> Self {
        Self::painted(count.to_string(), if count == 0 { Paint::Dim } else { paint })
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text = text.as_ref();
        Self { text: plain(if text.is_empty() { "-" } else { text }), paint: None }
    }
}

/// Headings, rows, and lines above and below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    above: Vec<(String, Option<Paint>)>,
    below: Vec<(String, Option<Paint>)>,
    empty: &'static str,
}

impl Table {
    /// A table with these headings; `empty` is shown instead when there are no rows.
    #[must_use]
    pub fn new(headings: &[&'static str], empty: &'static str) -> Self {
        Self { headings: headings.to_vec(), empty, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Adds a line above.
    pub fn above(&mut self, line: impl AsRef<str>, paint: Option<Paint>) {
        self.above.push((plain(line.as_ref()), paint));
    }

    /// Adds a line below.
    pub fn below(&mut self, line: impl AsRef<str>, paint: Option<Paint>) {
        self.below.push((plain(line.as_ref()), paint));
    }

    /// The text.
    #[must_use]
    pub fn render(&self, palette: Palette) -> String {
        let mut text = String::new();
        let lines = |text: &mut String, lines: &[(String, Option<Paint>)]| {
            for (line, paint) in lines {
                text.push_str(&paint.map_or_else(|| line.clone(), |paint| palette.paint(paint, line)));
                text.push('\n');
            }
        };
        lines(&mut text, &self.above);
        if self.rows.is_empty() {
            if !self.empty.is_empty() {
                text.push_str(self.empty);
                text.push('\n');
            }
        } else {
            let headings: Vec<Cell> = self
                .headings
                .iter()
                .map(|heading| Cell { text: (*heading).to_owned(), paint: Some(Paint::Bold) })
                .collect();
            let widths: Vec<usize> = (0..self.headings.len())
                .map(|column| {
                    let cells = self.rows.iter().chain([&headings]).filter_map(|row| row.get(column));
                    cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
                })
                .collect();
            for row in [&headings].into_iter().chain(&self.rows) {
                text.push_str(&render_row(row, &widths, palette));
            }
        }
        lines(&mut text, &self.below);
        text
    }
}

fn render_row(row: &[Cell], widths: &[usize], palette: Palette) -> String {
    let mut line = String::new();
    for (at, cell) in row.iter().enumerate() {
        line.push_str(
            &cell.paint.map_or_else(|| cell.text.clone(), |paint| palette.paint(paint, &cell.text)),
        );
        if at + 1 < row.len() {
            let width = widths.get(at).copied().unwrap_or(0);
            let pad = width.saturating_sub(cell.text.chars().count()) + GAP;
            line.extend(std::iter::repeat_n(' ', pad));
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let mut table = Table::new(&["NAME", "STATE"], "nothing");
        table.row(vec!["cluster-a".into(), Cell::painted("connected", Paint::Good)]);
        table.row(vec!["b".into(), "".into()]);
        table.below("1 note", None);
        let text = table.render(Palette::None);
        assert_eq!(text, "NAME        STATE\ncluster-a   connected\nb           -\n1 note\n");
        let coloured = table.render(Palette::Ansi);
        assert!(coloured.contains("\x1b[32mconnected\x1b[0m"), "{coloured:?}");
        assert!(coloured.contains("\x1b[1mNAME\x1b[0m        "), "colours take no width: {coloured:?}");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::new(&["NAME"], "no clusters").render(Palette::None), "no clusters\n");
        assert_eq!(Cell::count(0, Paint::Bad), Cell::painted("0", Paint::Dim));
    }
}
