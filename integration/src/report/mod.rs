//! Findings of an experiment, as people and programs want to read them: a table beside the anchors, one line of JSON,
//! and, in a directory, tables as CSV and plots as SVG.

mod figures;
mod table;
mod plot;

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

pub use figures::{Figures, show};
pub use plot::{Axis, Kind, Plot, Series};

/// Findings of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its name on the command line.
    pub experiment: &'static str,
    /// Under which conditions: name and value.
    pub conditions: Vec<(&'static str, String)>,
    /// The figures, beside those of others.
    pub rows: Vec<Row>,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// All figures as one JSON object on one line.
    pub json: String,
    /// Tables for further work.
    pub sheets: Vec<Sheet>,
    /// Pictures.
    pub plots: Vec<Plot>,
    /// Promises that did not hold, and what was lost, wrong or missed. None: all is well.
    pub faults: Vec<String>,
}

/// One figure, ours beside theirs.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The name of the figure.
    pub figure: String,
    /// Its value here.
    pub ours: String,
    /// The value that others reach; empty if nobody said.
    pub theirs: String,
    /// The source of that: number and mark of the anchor, and its conditions.
    pub source: String,
}

impl Row {
    /// A figure of our own.
    pub fn ours(figure: impl Into<String>, ours: impl Into<String>) -> Row {
        Row { figure: figure.into(), ours: ours.into(), ..Row::default() }
    }

    /// Beside it what others reach, and the source of that, with its conditions.
    pub fn beside(&mut self, theirs: impl Into<String>, source: impl Into<String>) {
        (self.theirs, self.source) = (theirs.into(), source.into());
    }
}

/// A table for other programs.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// The file's name without `.csv`.
    pub name: &'static str,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<f64>>,
}

/// The directory cannot take the report.
#[derive(Debug, Error)]
#[error("--out {}: {why}: name a directory that can be written to", path.display())]
pub struct OutError {
    path: PathBuf,
    why: String,
}

impl Report {
    /// The report with these figures.
    pub fn with(self, figures: Figures) -> Report {
        Report { rows: figures.rows, json: Value::Object(figures.json).to_string(), ..self }
    }

    /// The conditions and the table, for people.
    pub fn to_text(&self) -> String {
        table::text(self)
    }

    /// Writes `report.json`, the sheets and the plots.
    pub fn write(&self, dir: &Path) -> Result<(), OutError> {
        prepare(dir)?;
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|why| OutError { path, why: why.to_string() })
        };
        put("report.json", &format!("{}\n", self.json))?;
        for sheet in &self.sheets {
            put(&format!("{}.csv", sheet.name), &sheet.to_csv())?;
        }
        for plot in &self.plots {
            let name = format!("{}.svg", plot.name);
            let svg = plot.to_svg().map_err(|why| OutError { path: dir.join(&name), why })?;
            put(&name, &svg)?;
        }
        Ok(())
    }
}

/// Sees to it that the directory is there and can be written to: before a long run, not after.
pub fn prepare(dir: &Path) -> Result<(), OutError> {
    let error = |why: std::io::Error| OutError { path: dir.to_path_buf(), why: why.to_string() };
    std::fs::create_dir_all(dir).map_err(error)?;
    let probe = dir.join(".lab");
    std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe)).map_err(error)
}

impl Sheet {
    /// Comma-separated values, names first.
    pub fn to_csv(&self) -> String {
        let mut text = self.columns.join(",");
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(f64::to_string).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }
}
