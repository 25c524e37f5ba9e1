//! Plots as data, drawn by plotters into SVG, whose text needs no font files.

/// A picture to be.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The file's name without `.svg`.
    pub name: &'static str,
    /// Above the picture.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// An axis: what it shows in which unit, and its range (`None`: as the data need).
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// From where to where.
    pub range: Option<(f64, f64)>,
    /// Each tick ten times the last.
    pub logarithmic: bool,
}

/// One line, set of bars, or mark.
#[derive(Clone, Debug)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// How it is drawn.
    pub kind: Kind,
    /// (x, y).
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line through all points.
    Line,
    /// A dashed line: others' figures.
    Dashed,
    /// A bar on each whole x; several series of bars stand side by side.
    Bars,
    /// A step upwards at each point: a distribution.
    Steps,
}

impl Plot {
    /// The picture as SVG.
    pub fn to_svg(&self) -> Result<String, String> {
        Err("not drawn".to_string())
    }
}
