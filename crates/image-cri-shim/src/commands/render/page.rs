//! Lines, fields and tables one below the other, wide or narrow.

use super::cell::Cell;
use super::style;
use super::table::{Layout, Table};

/// Text with colours in it, made for a terminal of some width.
#[derive(Debug)]
pub(crate) struct Page {
    /// Columns.
    width: usize,
    text: String,
}

/// Columns where there is no terminal, such as in a file or a pipe: two thirds of a wide screen.
const WIDTH_WITHOUT_TERMINAL: usize = 160;
/// Columns before what belongs to the line above.
const INDENT: usize = 2;
/// Columns of the labels before fields, with the space after them.
const LABEL: usize = 14;
/// Columns of `ok`, `warn` and `bad`, with the space after them.
const MARK: usize = 6;
/// Below this, a field's value stands under its label.
const NARROW: usize = 50;

impl Page {
    /// An empty page of `width` columns; None where there is no terminal.
    pub(crate) fn new(width: Option<usize>) -> Self {
        Self {
            // A terminal of no width is one that doesn't know it.
            width: width
                .filter(|width| *width > 0)
                .unwrap_or(WIDTH_WITHOUT_TERMINAL),
            text: String::new(),
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// An empty line, unless nothing is above it.
    pub(crate) fn space(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A line of pieces, with spaces between them; wrapped between pieces and within them.
    pub(crate) fn line(&mut self, pieces: &[Cell]) {
        self.pieces("", 2 * INDENT, pieces);
    }

    /// The title of what comes below it.
    pub(crate) fn section(&mut self, title: &str) {
        self.space();
        self.line(&[Cell::styled(title, style::HEAD)]);
    }

    /// `  label        value`.
    pub(crate) fn field(&mut self, label: &str, value: &[Cell]) {
        let label = Cell::styled(label, style::DIM);
        if self.is_narrow() {
            if !label.is_empty() {
                self.push(INDENT, &label.painted());
            }
            self.pieces(&" ".repeat(2 * INDENT), 2 * INDENT, value);
            return;
        }
        let pad = LABEL.saturating_sub(label.width()).max(1);
        let before = format!(
            "{}{}{}",
            " ".repeat(INDENT),
            label.painted(),
            " ".repeat(pad)
        );
        self.pieces(&before, INDENT + LABEL, value);
    }

    /// `  ok    what was seen`.
    pub(crate) fn verdict(&mut self, mark: &Cell, text: &Cell) {
        let pad = MARK.saturating_sub(mark.width()).max(1);
        let before = format!(
            "{}{}{}",
            " ".repeat(INDENT),
            mark.painted(),
            " ".repeat(pad)
        );
        self.pieces(&before, INDENT + MARK, std::slice::from_ref(text));
    }

    /// `        $ what mends it`, below a verdict. On one line, so that it can be copied whole.
    pub(crate) fn mend(&mut self, command: &Cell) {
        let prompt = Cell::styled("$", style::DIM);
        self.push(
            INDENT + MARK,
            &format!("{} {}", prompt.painted(), command.painted()),
        );
    }

    /// An item of a section, with a remark.
    pub(crate) fn item(&mut self, item: &str, remark: &str) {
        let remark = Cell::styled(remark, style::DIM);
        self.pieces(&" ".repeat(INDENT), INDENT, &[Cell::new(item), remark]);
    }

    /// A table, or a block for each row where it is too wide for that.
    pub(crate) fn table(&mut self, table: &Table) {
        match table.layout(self.width.saturating_sub(INDENT)) {
            Layout::Whole(widths) => self.rows(table, &widths, false),
            Layout::WithAsides(widths) => self.rows(table, &widths, true),
            Layout::Blocks => self.blocks(table),
        }
    }

    fn rows(&mut self, table: &Table, widths: &[usize], with_asides: bool) {
        let titles: Vec<Cell> = table
            .columns
            .iter()
            .map(|column| Cell::styled(column.title(), style::DIM))
            .collect();
        for line in table.lines(&titles, widths) {
            self.push(INDENT, &line);
        }
        for row in &table.rows {
            for (at, line) in table.lines(&row.cells, widths).iter().enumerate() {
                if at == 0 && !row.mark.is_empty() {
                    let pad = " ".repeat(INDENT.saturating_sub(row.mark.width()));
                    self.push(0, &format!("{}{pad}{line}", row.mark.painted()));
                } else {
                    self.push(INDENT, line);
                }
            }
            if with_asides {
                let indent = " ".repeat(3 * INDENT);
                self.pieces(&indent, 3 * INDENT, &table.asides(row));
            }
        }
    }

    fn blocks(&mut self, table: &Table) {
        let titles = table.columns.iter().map(|column| column.title().len());
        let label = titles.max().unwrap_or(0) + 1;
        for row in &table.rows {
            let head = row
                .cells
                .get(table.key)
                .cloned()
                .unwrap_or_else(Cell::empty);
            if row.mark.is_empty() {
                self.pieces(&" ".repeat(INDENT), 2 * INDENT, &[head]);
            } else {
                let pad = " ".repeat(INDENT.saturating_sub(row.mark.width()));
                let before = format!("{}{pad}", row.mark.painted());
                self.pieces(&before, 2 * INDENT, &[head]);
            }
            for (at, (column, cell)) in table.columns.iter().zip(&row.cells).enumerate() {
                if at == table.key || cell.is_empty() {
                    continue;
                }
                let name = Cell::styled(column.title().to_lowercase(), style::DIM);
                let pad = label.saturating_sub(name.width());
                let before = format!(
                    "{}{}{}",
                    " ".repeat(2 * INDENT),
                    name.painted(),
                    " ".repeat(pad)
                );
                self.pieces(&before, 2 * INDENT + label, std::slice::from_ref(cell));
            }
        }
    }

    /// `before`, then the pieces; lines that follow begin after `hang` columns. `before` takes `hang`
    /// columns or none.
    fn pieces(&mut self, before: &str, hang: usize, pieces: &[Cell]) {
        let used_before = if before.is_empty() { 0 } else { hang };
        let mut line = before.to_owned();
        let mut used = used_before;
        let mut is_first = true;
        let width = self.width;
        let room = |used: usize| width.saturating_sub(used);
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let gap = usize::from(!is_first);
            if piece.width() <= room(used + gap) {
                line.push_str(&" ".repeat(gap));
                line.push_str(&piece.painted());
                used += gap + piece.width();
                is_first = false;
                continue;
            }
            if !is_first {
                self.push(0, &line);
                line = " ".repeat(hang);
            }
            let width = room(hang).max(1);
            let lines = piece.wrapped(width);
            let last = lines.len().saturating_sub(1);
            for (at, part) in lines.iter().enumerate() {
                line.push_str(&part.painted());
                used = hang + part.width();
                if at < last {
                    self.push(0, &line);
                    line = " ".repeat(hang);
                }
            }
            is_first = false;
        }
        self.push(0, &line);
    }

    /// Text of several lines, such as an error.
    pub(crate) fn paragraph(&mut self, text: &str) {
        for line in text.lines() {
            self.pieces(&" ".repeat(2 * INDENT), 2 * INDENT, &[Cell::new(line)]);
        }
    }

    fn is_narrow(&self) -> bool {
        self.width < NARROW
    }

    fn push(&mut self, indent: usize, line: &str) {
        if !line.is_empty() {
            self.text.push_str(&" ".repeat(indent));
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}
