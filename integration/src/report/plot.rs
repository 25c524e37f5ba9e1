//! Plots as data, drawn by plotters into SVG, whose text needs no font files.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

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
    /// All that is drawn.
    pub series: Vec<Series>,
}

/// An axis: what it shows in which unit, and its range (`None`: as the data need).
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// The quantity that it shows, with its unit.
    pub label: String,
    /// From where to where; `None`: as the data need, from 0 on.
    pub range: Option<(f64, f64)>,
    /// Where it begins, if not at 0.
    pub least: Option<f64>,
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
}

impl Axis {
    /// An axis from 0 on.
    pub fn of(label: &str) -> Axis {
        Axis { label: label.to_string(), ..Axis::default() }
    }
}

impl Series {
    /// A series.
    pub fn new(name: &str, kind: Kind, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.to_string(), kind, points }
    }
}

/// The picture's size in pixels.
const SIZE: (u32, u32) = (900, 540);
/// Colours that stay apart for the colour-blind (Okabe & Ito 2008), in the order of the series.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(90, 90, 90),
    RGBColor(86, 180, 233),
];
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// The picture as SVG.
    pub fn to_svg(&self) -> std::result::Result<String, String> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        self.draw(&area).map_err(|error| format!("plot {} cannot be drawn: {error}", self.name))?;
        drop(area);
        Ok(svg)
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        area.fill(&WHITE)?;
        let (x, y) = (self.horizontal(), self.vertical());
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(&self.title, (FONT, 22).into_font().color(&INK))
            .margin(16)
            .margin_right(28)
            .x_label_area_size(52)
            .y_label_area_size(72);
        // Each combination of scales is a type of its own.
        match (self.x.logarithmic, self.y.logarithmic) {
            (false, false) => self.fill(builder.build_cartesian_2d(x.0..x.1, y.0..y.1)?),
            (false, true) => self.fill(builder.build_cartesian_2d(x.0..x.1, (y.0..y.1).log_scale())?),
            (true, false) => self.fill(builder.build_cartesian_2d((x.0..x.1).log_scale(), y.0..y.1)?),
            (true, true) => {
                self.fill(builder.build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?)
            }
        }?;
        area.present()
    }

    fn fill<'a, X, Y>(&self, mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let bars = self.series.iter().any(|series| series.kind == Kind::Bars);
        let (across, up) = (|value: &f64| tick(*value, bars), |value: &f64| tick(*value, false));
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&across)
            .y_label_formatter(&up)
            .axis_desc_style((FONT, 16).into_font().color(&INK))
            .label_style((FONT, 14).into_font().color(&INK))
            .axis_style(INK)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID);
        if self.y.logarithmic {
            mesh.y_labels(6);
        }
        if bars {
            mesh.disable_x_mesh().x_labels(24);
        }
        mesh.draw()?;
        self.draw_series(&mut chart)?;
        chart
            .configure_series_labels()
            .position(self.corner())
            .label_font((FONT, 14).into_font().color(&INK))
            .background_style(WHITE.mix(0.9))
            .border_style(GRID)
            .draw()
    }

    fn draw_series<'a, X, Y>(
        &self,
        chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    ) -> Result<()>
    where
        X: Ranged<ValueType = f64>,
        Y: Ranged<ValueType = f64>,
    {
        let abreast = self.series.iter().filter(|series| series.kind == Kind::Bars).count();
        for (place, series) in self.series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            // Points off the right edge would be drawn onto it.
            let shown = |(x, _): &(f64, f64)| self.x.range.is_none_or(|(_, most)| *x <= most);
            let points = series.points.iter().copied().filter(shown);
            let drawn = match series.kind {
                Kind::Line => chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?,
                Kind::Dashed => {
                    chart.draw_series(DashedLineSeries::new(points, 8, 6, colour.stroke_width(2)))?
                }
                Kind::Bars => chart.draw_series(points.map(|(x, y)| {
                    let left = x - 0.4 + 0.8 * place as f64 / abreast as f64;
                    let right = left + 0.8 / abreast as f64;
                    Rectangle::new([(left, 0.0), (right, y)], colour.filled())
                }))?,
            };
            let key = move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled());
            drawn.label(&series.name).legend(key);
        }
        Ok(())
    }

    /// Where the legend hides nothing: distributions end in the upper right.
    fn corner(&self) -> SeriesLabelPosition {
        match self.y.range {
            Some((_, 1.0)) => SeriesLabelPosition::LowerRight,
            Some(_) | None => SeriesLabelPosition::UpperRight,
        }
    }

    fn horizontal(&self) -> (f64, f64) {
        let xs = || self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        if self.series.iter().any(|series| series.kind == Kind::Bars) {
            return (-0.6, xs().fold(1.0, f64::max) + 0.6);
        }
        self.x.span(xs())
    }

    /// A fifth is left free above, for the legend.
    fn vertical(&self) -> (f64, f64) {
        let (least, most) =
            self.y.span(self.series.iter().flat_map(|series| series.points.iter().map(|p| p.1)));
        let room = if self.y.range.is_some() { 1.0 } else { 1.25 };
        (least, most * room)
    }
}

impl Axis {
    /// From where to where, if these are the values on it.
    fn span(&self, values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let shown = values.filter(|value| value.is_finite() && (!self.logarithmic || *value > 0.0));
        let most = shown.clone().fold(f64::MIN_POSITIVE, f64::max);
        let least = if self.logarithmic { shown.fold(most, f64::min) } else { self.least.unwrap_or(0.0) };
        let (least, most) = self.range.unwrap_or((least, most));
        // Nothing to show, or one value only: an axis has a length nonetheless.
        (least, if most > least { most } else { least + 1.0 })
    }
}

/// The number at a tick; `whole`: only whole numbers have one.
fn tick(value: f64, whole: bool) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    if whole && rounded.fract() != 0.0 { String::new() } else { rounded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_svg_with_its_words() {
        let plot = |kind, logarithmic| Plot {
            name: "hops",
            title: "Hops of a lookup".to_string(),
            x: Axis::of("hops"),
            y: Axis { logarithmic, ..Axis::of("share") },
            series: vec![Series::new("Treecast", kind, vec![(0.0, 0.1), (1.0, 0.9)])],
        };
        for (kind, logarithmic) in [(Kind::Line, true), (Kind::Dashed, false), (Kind::Bars, false)] {
            let svg = plot(kind, logarithmic).to_svg().unwrap();
            for word in ["<svg", "Hops of a lookup", "Treecast", "share"] {
                assert!(svg.contains(word), "{word} is missing in {svg}");
            }
        }
        let empty =
            Plot { series: vec![Series::new("nothing", Kind::Line, Vec::new())], ..plot(Kind::Line, true) };
        assert!(empty.to_svg().is_ok());
    }
}
