//! Requests over time, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::meter::Series;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (760, 260);
/// Seconds that are one point of a line.
const POINT: usize = 5;

/// A line of a plot.
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Its requests.
    pub series: &'a Series,
}

/// A plot of requests per second over `seconds`; each point is the mean of five seconds.
///
/// # Errors
/// The plot can't be drawn.
pub fn svg(title: &str, lines: &[Line<'_>], seconds: u64) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, title, lines, seconds).map_err(|error| anyhow!("plot {title:?}: {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    lines: &[Line<'_>],
    seconds: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];
    let drawn: Vec<Vec<(f64, f64)>> = lines.iter().map(|line| points(line.series)).collect();
    let highest = drawn
        .iter()
        .flatten()
        .map(|(_, y)| *y)
        .fold(1.0_f64, f64::max);
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds as f64, 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds")
        .y_desc("requests per second")
        .draw()?;
    for ((line, points), colour) in lines.iter().zip(drawn).zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

fn points(series: &Series) -> Vec<(f64, f64)> {
    let chunks = series.per_second().chunks(POINT).enumerate();
    chunks
        .map(|(at, chunk)| {
            let requests: u64 = chunk.iter().map(|n| u64::from(*n)).sum();
            let middle = (at * POINT) as f64 + POINT as f64 / 2.0;
            (middle, requests as f64 / chunk.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_plot_is_small_and_names_its_lines() {
        let mut series = Series::default();
        for second in 0..1800 {
            series.count(Duration::from_secs(second), 7);
        }
        let line = Line {
            name: "ours",
            series: &series,
        };
        let text = svg("a title", &[line], 1800).unwrap();
        assert!(text.starts_with("<svg") && text.contains("ours") && text.contains("a title"));
        assert!(text.len() < 32 * 1024, "{}", text.len());
    }
}
