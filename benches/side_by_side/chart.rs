//! The chart of a run: one bar for each figure that has a target beside Apache's, as SVG.
//!
//! A bar says how many times better ours is, on a logarithmic axis: throughput by its ratio, time and memory by the
//! ratio turned over. The line is 1, Apache itself; the tick on a bar is its target. No background and middling colours,
//! so that it can be read on white and on black.

use std::fmt::Write;

use crate::figure::{Figure, Target, short};

const BAR_HEIGHT: f64 = 13.0;
const LINE_HEIGHT: f64 = 19.0;
const LABEL_WIDTH: f64 = 390.0;
const PLOT_WIDTH: f64 = 430.0;
const VALUE_WIDTH: f64 = 60.0;
const HEAD_HEIGHT: f64 = 44.0;
const GROUP_HEIGHT: f64 = 26.0;
const FOOT_HEIGHT: f64 = 28.0;
const TEXT_COLOUR: &str = "#7d8590";
const GRID_COLOUR: &str = "#7d859055";
const MET_COLOUR: &str = "#3b82d6";
const MISSED_COLOUR: &str = "#c98318";
const TARGET_COLOUR: &str = "#d1495b";
/// The axis reaches at least from here to there.
const NARROWEST: (f64, f64) = (0.5, 10.0);
const TICKS: [f64; 12] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// Bars that belong together, under one heading.
#[derive(Debug)]
pub(crate) struct Group {
    title: String,
    bars: Vec<Bar>,
}

#[derive(Debug)]
struct Bar {
    label: String,
    times_better: f64,
    target: f64,
    is_met: bool,
}

impl Group {
    /// The figures that can be drawn; the others are left out.
    pub(crate) fn of<'a>(title: &str, figures: impl Iterator<Item = &'a Figure>) -> Self {
        Self {
            title: title.to_owned(),
            bars: figures.filter_map(Bar::of).collect(),
        }
    }
}

impl Bar {
    fn of(figure: &Figure) -> Option<Self> {
        let (target, is_met) = figure
            .verdicts()
            .into_iter()
            .find(|(target, _)| !target.is_absolute())?;
        let ratio = figure.ratio()?.median;
        let (times_better, target) = match target {
            Target::RatioAtLeast(bound) => (ratio, bound),
            Target::RatioAtMost(bound) => (1.0 / ratio, 1.0 / bound),
            Target::AtLeast(_) | Target::AtMost(_) => return None,
        };
        (times_better.is_finite() && times_better > 0.0).then(|| Self {
            label: figure.name.clone(),
            times_better,
            target,
            is_met,
        })
    }
}

/// Where a ratio lies on the page.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    fn over(groups: &[Group]) -> Self {
        let ends = groups
            .iter()
            .flat_map(|group| &group.bars)
            .flat_map(|bar| [bar.times_better, bar.target]);
        let (least, most) = ends.fold(NARROWEST, |(least, most), end| (least.min(end), most.max(end)));
        Self {
            least: least * 0.9,
            most: most * 1.15,
        }
    }

    fn x(&self, ratio: f64) -> f64 {
        LABEL_WIDTH + PLOT_WIDTH * (ratio / self.least).ln() / (self.most / self.least).ln()
    }
}

/// The whole picture; `caption` says what machine, date and commit it is of.
pub(crate) fn svg(groups: &[Group], caption: &str) -> String {
    let axis = Axis::over(groups);
    let drawn = || groups.iter().filter(|group| !group.bars.is_empty());
    let heights = drawn().map(|group| GROUP_HEIGHT + group.bars.len() as f64 * LINE_HEIGHT);
    let bottom = HEAD_HEIGHT + heights.sum::<f64>();
    let (width, height) = (LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH, bottom + FOOT_HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{TEXT_COLOUR}\">\n"
    );
    let title = "Times better than Apache ZooKeeper 3.9.5";
    let _ = writeln!(svg, "<title>{title}</title>");
    text(&mut svg, (8.0, 16.0), "font-weight=\"600\"", title);
    text(&mut svg, (8.0, 32.0), "font-size=\"10\"", caption);
    grid(&mut svg, &axis, bottom);
    let mut y = HEAD_HEIGHT;
    for group in drawn() {
        text(
            &mut svg,
            (8.0, y + GROUP_HEIGHT - 8.0),
            "font-weight=\"600\"",
            &group.title,
        );
        y += GROUP_HEIGHT;
        for bar in &group.bars {
            draw(&mut svg, bar, &axis, y);
            y += LINE_HEIGHT;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The axis' lines with their numbers below; the one at 1 is stronger.
fn grid(svg: &mut String, axis: &Axis, bottom: f64) {
    for tick in TICKS.into_iter().filter(|tick| (axis.least..=axis.most).contains(tick)) {
        let x = axis.x(tick);
        let (colour, width) = if tick == 1.0 {
            (TEXT_COLOUR, 1.5)
        } else {
            (GRID_COLOUR, 1.0)
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{HEAD_HEIGHT}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/>"
        );
        text(
            svg,
            (x, bottom + 16.0),
            "text-anchor=\"middle\"",
            &format!("{}×", short(tick)),
        );
    }
}

/// One bar from the line of 1, with its label, its value, and the tick of its target.
fn draw(svg: &mut String, bar: &Bar, axis: &Axis, y: f64) {
    let (one, end, target) = (axis.x(1.0), axis.x(bar.times_better), axis.x(bar.target));
    let (left, width) = (one.min(end), (end - one).abs().max(1.0));
    let colour = if bar.is_met { MET_COLOUR } else { MISSED_COLOUR };
    let top = y + (LINE_HEIGHT - BAR_HEIGHT) / 2.0;
    let baseline = top + BAR_HEIGHT - 3.0;
    text(svg, (LABEL_WIDTH - 10.0, baseline), "text-anchor=\"end\"", &bar.label);
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"1.5\" fill=\"{colour}\"/>"
    );
    let (from, to) = (top - 2.0, top + BAR_HEIGHT + 2.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{target:.1}\" y1=\"{from:.1}\" x2=\"{target:.1}\" y2=\"{to:.1}\" stroke=\"{TARGET_COLOUR}\" \
         stroke-width=\"2\"/>"
    );
    // Behind both the bar and the tick, so that neither crosses it.
    let place = one.max(end).max(target) + 6.0;
    text(
        svg,
        (place, baseline),
        "text-anchor=\"start\"",
        &format!("{}×", short(bar.times_better)),
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}
