//! Curves as SVG.

use std::{fs, path::Path};

use plotters::prelude::*;
use testkit::{Error, Result, error::Context};

/// One line of a plot: its name and its points.
pub(crate) type Line = (String, Vec<(f64, f64)>);

/// A plot of some lines.
pub(crate) struct Plot {
    /// The name of its file, without `.svg`.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) lines: Vec<Line>,
}

impl Plot {
    /// Writes it into a folder. A plot without points is not written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).context("create", folder)?;
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let most = |axis: fn(&(f64, f64)) -> f64| points().map(axis).fold(0.0, f64::max);
        let (right, top) = (most(|point| point.0), most(|point| point.1));
        if right <= 0.0 || top <= 0.0 {
            return Ok(());
        }
        let path = folder.join(format!("{}.svg", self.file));
        self.draw(&path, right, top)
            .map_err(|error| Error::Format { what: path.display().to_string(), why: error.to_string() })
    }

    fn draw(&self, path: &Path, right: f64, top: f64) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (900, 540)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.05)?;
        chart.configure_mesh().x_desc(self.x).y_desc(self.y).draw()?;
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_plot_names_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let plot = |file: &str, points: Vec<(f64, f64)>| Plot {
            file: file.to_owned(),
            title: "A title".to_owned(),
            x: "seconds",
            y: "objects",
            lines: vec![("operator".to_owned(), points)],
        };
        plot("curve", vec![(0.0, 0.0), (1.0, 10.0)]).write(folder.path()).unwrap();
        let svg = fs::read_to_string(folder.path().join("curve.svg")).unwrap();
        assert!(["A title", "operator", "seconds", "polyline"].iter().all(|part| svg.contains(part)), "{svg}");
        plot("empty", Vec::new()).write(folder.path()).unwrap();
        assert!(!folder.path().join("empty.svg").exists());
    }
}
