//! Figures: medians, ratios, the table and the JSON file.

use std::fmt::Write as _;

use crate::contender::Contender;
use crate::row::Row;
use crate::work::Sample;

/// A contender's samples, one for each round.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) contender: Contender,
    /// Why there is none, or how it ended before the last round.
    pub(crate) trouble: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

impl Column {
    fn values(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.value).collect()
    }

    fn lost(&self) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.lost).collect())
    }
}

/// A row that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) columns: Vec<Column>,
}

impl Measured {
    /// The row as a person reads it.
    pub(crate) fn text(&self) -> String {
        let row = self.row;
        let better = if row.less_is_better() { "less" } else { "more" };
        let mut text = format!("{} ({}; {better} is better): {}\n", row.name(), row.unit(), row.about());
        for column in &self.columns {
            let name = column.contender.name();
            if let Some(middle) = median(column.values()) {
                let (low, high) = spread(&column.values());
                let range = format!("{}..{}", figure(low), figure(high));
                let _ = write!(text, "  {name:<24} {:>12}  {range:<24}", figure(middle));
                if let Some(lost) = column.lost() {
                    let _ = write!(text, " lost {:>5.1} %", lost * 100.0);
                }
                for (of, mark) in [
                    (Contender::Lan, "LAN"),
                    (Contender::Path, "path"),
                    (Contender::Vde, "vde"),
                    (Contender::Tap, "TAP"),
                    (Contender::Switch, "switch"),
                ] {
                    if let Some(ratio) = self.ratio(of, column) {
                        let _ = write!(text, "  {mark} {ratio:>7.2}x");
                    }
                }
                text.push('\n');
            }
            if let Some(trouble) = &column.trouble {
                let what = if column.samples.is_empty() { "not measured" } else { "ended early" };
                let _ = writeln!(text, "  {name:<24} {what}: {trouble}");
            }
        }
        text
    }

    /// The row as JSON.
    pub(crate) fn json(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| self.column_json(column)).collect();
        let (name, unit) = (self.row.name(), self.row.unit());
        format!("{{\"row\":\"{name}\",\"unit\":\"{unit}\",\"contenders\":[{}]}}", columns.join(","))
    }

    fn column_json(&self, column: &Column) -> String {
        let list = |values: Vec<f64>| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let mut json =
            format!("{{\"name\":\"{}\",\"samples\":[{}]", column.contender.name(), list(column.values()));
        if let Some(middle) = median(column.values()) {
            let _ = write!(json, ",\"median\":{middle}");
        }
        let lost: Vec<_> = column.samples.iter().filter_map(|sample| sample.lost).collect();
        if !lost.is_empty() {
            let _ = write!(json, ",\"lost\":[{}]", list(lost));
        }
        if let Some(trouble) = &column.trouble {
            let _ = write!(json, ",\"trouble\":{}", quoted(trouble));
        }
        json.push('}');
        json
    }

    /// How many times better `of` is, round by round, than a column of the kernel's or the C library's.
    fn ratio(&self, of: Contender, column: &Column) -> Option<f64> {
        if matches!(column.contender, Contender::Lan | Contender::Vde | Contender::Path | Contender::Switch) {
            return None;
        }
        let ours = self.columns.iter().find(|column| column.contender == of)?;
        let less = self.row.less_is_better();
        let ratios = ours.samples.iter().zip(&column.samples).map(|(ours, theirs)| match less {
            true => theirs.value / ours.value,
            false => ours.value / theirs.value,
        });
        median(ratios.collect())
    }
}

/// A string as JSON has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn spread(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Three digits or more.
fn figure(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(spread(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }

    #[test]
    fn ratios_are_of_rounds() {
        let column = |contender, values: [f64; 3]| Column {
            contender,
            trouble: None,
            samples: values.map(Sample::from).to_vec(),
        };
        let columns =
            vec![column(Contender::Lan, [2.0, 40.0, 6.0]), column(Contender::Veth, [1.0, 10.0, 2.0])];
        let mut measured = Measured { row: Row::TcpBulk, columns };
        assert_eq!(measured.ratio(Contender::Lan, &measured.columns[1]), Some(3.0));
        assert_eq!(measured.ratio(Contender::Lan, &measured.columns[0]), None);
        assert_eq!(measured.ratio(Contender::Vde, &measured.columns[1]), None);
        measured.row = Row::PingPong;
        assert_eq!(measured.ratio(Contender::Lan, &measured.columns[1]), Some(1.0 / 3.0));
    }

    #[test]
    fn json_strings() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
