//! Tables that become blocks where they don't fit.

use super::cell::Cell;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    align_right: bool,
    /// Its text may go on in the next line.
    wraps: bool,
    /// It may stand below the row, where the table is too wide.
    aside: bool,
}

impl Column {
    pub(crate) const fn left(title: &'static str) -> Self {
        Self {
            title,
            align_right: false,
            wraps: false,
            aside: false,
        }
    }

    pub(crate) const fn right(title: &'static str) -> Self {
        Self {
            title,
            align_right: true,
            wraps: false,
            aside: false,
        }
    }

    pub(crate) const fn wrapping(title: &'static str) -> Self {
        Self {
            title,
            align_right: false,
            wraps: true,
            aside: false,
        }
    }

    /// The same column, of less weight than those without this.
    pub(crate) const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }
}

/// One row. A mark (`>`) stands before it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) mark: Cell,
    pub(crate) cells: Vec<Cell>,
}

/// Columns and rows. The column that a row is known by is `key`: it is the head of the row's block
/// where the table doesn't fit.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) key: usize,
    pub(crate) rows: Vec<Row>,
}

/// Between columns.
const GAP: usize = 2;
/// A column of text that is narrower than this is no pleasure to read, unless it is the only one.
const NARROWEST: usize = 30;
const NARROWEST_ALONE: usize = 20;

/// How a table is laid out.
pub(super) enum Layout {
    /// With these widths, all columns.
    Whole(Vec<usize>),
    /// With these widths, the columns that matter most; the others below each row.
    WithAsides(Vec<usize>),
    /// A block for each row.
    Blocks,
}

impl Table {
    /// A table without the columns in which every row is empty.
    pub(crate) fn without_empty_columns(mut self) -> Self {
        for at in (0..self.columns.len()).rev() {
            let has_text = |row: &Row| row.cells.get(at).is_some_and(|cell| !cell.is_empty());
            if at != self.key && !self.rows.iter().any(has_text) {
                self.columns.remove(at);
                if at < self.key {
                    self.key -= 1;
                }
                for row in &mut self.rows {
                    if at < row.cells.len() {
                        row.cells.remove(at);
                    }
                }
            }
        }
        self
    }

    /// The best layout within `width`.
    pub(super) fn layout(&self, width: usize) -> Layout {
        let all: Vec<usize> = (0..self.columns.len()).map(|at| self.natural(at)).collect();
        if let Some(widths) = self.fit(all.clone(), width, NARROWEST) {
            return Layout::Whole(widths);
        }
        let mut without_asides = all;
        for (column, width) in self.columns.iter().zip(&mut without_asides) {
            if column.aside {
                *width = 0;
            }
        }
        match self.fit(without_asides, width, NARROWEST_ALONE) {
            Some(widths) => Layout::WithAsides(widths),
            None => Layout::Blocks,
        }
    }

    fn natural(&self, at: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(at));
        let widest = cells.map(Cell::width).max().unwrap_or(0);
        let title = self.columns.get(at).map_or(0, |column| column.title.len());
        widest.max(title)
    }

    /// Makes columns that wrap narrower, the widest first, until all fit. A width of 0 is a column
    /// that is not there.
    fn fit(&self, mut widths: Vec<usize>, width: usize, narrowest: usize) -> Option<Vec<usize>> {
        let there = widths.iter().filter(|width| **width > 0).count();
        let all = widths.iter().sum::<usize>() + GAP * there.saturating_sub(1);
        let mut too_much = all.saturating_sub(width);
        while too_much > 0 {
            let wrapping = self.columns.iter().zip(&mut widths);
            let mut wrapping: Vec<&mut usize> = wrapping
                .filter_map(|(column, width)| column.wraps.then_some(width))
                .collect();
            wrapping.sort_unstable_by_key(|width| std::cmp::Reverse(**width));
            let second = wrapping.get(1).map_or(0, |width| **width);
            let widest = wrapping.into_iter().next()?;
            let rest = widest.saturating_sub(narrowest);
            if rest == 0 {
                return None;
            }
            // Down to the next widest, then both.
            let step = too_much.min(rest).min(widest.saturating_sub(second).max(1));
            *widest -= step;
            too_much -= step;
        }
        Some(widths)
    }

    /// What stands below a row: the columns that are not in it.
    pub(super) fn asides(&self, row: &Row) -> Vec<Cell> {
        let cells = self.columns.iter().zip(&row.cells);
        let asides: Vec<_> = cells
            .filter(|(column, cell)| column.aside && !cell.is_empty())
            .collect();
        let last = asides.len().saturating_sub(1);
        asides
            .into_iter()
            .enumerate()
            .map(|(at, (column, cell))| {
                let end = if at < last { ";" } else { "" };
                cell.with_text(&format!("{}: {cell}{end}", column.title.to_lowercase()))
            })
            .collect()
    }

    /// The lines of the table's row, or of its titles.
    pub(super) fn lines(&self, cells: &[Cell], widths: &[usize]) -> Vec<String> {
        let mut columns: Vec<Vec<Cell>> = Vec::new();
        for ((column, cell), width) in self.columns.iter().zip(cells).zip(widths) {
            if *width == 0 {
                columns.push(Vec::new());
                continue;
            }
            columns.push(if column.wraps {
                cell.wrapped(*width)
            } else {
                vec![cell.clone()]
            });
        }
        let height = columns.iter().map(Vec::len).max();
        (0..height.unwrap_or(0))
            .map(|line| {
                let mut text = String::new();
                for (at, (lines, width)) in columns.iter().zip(widths).enumerate() {
                    if *width == 0 {
                        continue;
                    }
                    let piece = lines.get(line).cloned().unwrap_or_else(Cell::empty);
                    let pad = " ".repeat(width.saturating_sub(piece.width()));
                    let piece = piece.painted();
                    if !text.is_empty() {
                        text.push_str(&" ".repeat(GAP));
                    }
                    if self
                        .columns
                        .get(at)
                        .is_some_and(|column| column.align_right)
                    {
                        text.push_str(&pad);
                        text.push_str(&piece);
                    } else {
                        text.push_str(&piece);
                        text.push_str(&pad);
                    }
                }
                text.trim_end().to_owned()
            })
            .collect()
    }
}
