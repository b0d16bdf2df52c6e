//! Plots as inline SVG, coloured by the page's style sheet. No script: a bar says what it is in its title.
//!
//! Coordinates are whole numbers, so a plot is the same on every machine.

use std::fmt::Write as _;

use super::axis::Axis;
use super::page::escape;

/// Width of a plot over the whole page, in its own units.
const WIDTH: u64 = 1040;
/// Room left of the bars for numbers, and below them for days.
const LEFT: u64 = 44;
const BELOW: u64 = 22;
/// Lines across a plot, at round numbers.
const MAX_LINES: u64 = 4;
/// Days named below a plot.
const MAX_LABELS: usize = 7;
/// Room that a day's name takes.
const LABEL_WIDTH: u64 = 76;
/// Size of a plot in a table's row.
const SMALL_WIDTH: u64 = 180;
const SMALL_HEIGHT: u64 = 26;

/// One colour of a plot.
pub(super) struct Layer {
    /// Class of its bars.
    pub(super) class: &'static str,
    /// What it counts, for people.
    pub(super) name: String,
    /// A value for each bin.
    pub(super) sums: Vec<u64>,
}

/// Bars over days, layer upon layer, with numbers at the side and days below.
pub(super) fn bars(axis: &Axis, layers: &[Layer], label: &str, height: u64) -> String {
    let totals: Vec<u64> =
        (0..axis.bins).map(|bin| layers.iter().filter_map(|layer| layer.sums.get(bin)).sum()).collect();
    let largest = totals.iter().copied().max().unwrap_or(0).max(1);
    let step = round_step(largest);
    let top = largest.div_ceil(step) * step;
    let plot_height = height - BELOW - 8;
    let y_of = |value: u64| 8 + plot_height - scaled(value, plot_height, top);
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escape(label)
    );
    for value in (0..=top).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let y = y_of(value);
        add(&mut svg, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>"));
        let (x, y) = (LEFT - 8, y + 4);
        add(&mut svg, format_args!("<text class=\"axis\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{value}</text>\n"));
    }
    let room = WIDTH - LEFT;
    let bins = axis.bins as u64;
    let gap = if room / bins >= 6 { 2 } else { u64::from(room / bins >= 3) };
    for bin in 0..axis.bins {
        let (x, end) = (LEFT + room * bin as u64 / bins, LEFT + room * (bin as u64 + 1) / bins);
        let width = (end - x).saturating_sub(gap).max(1);
        let mut below = 0;
        for layer in layers {
            let value = layer.sums.get(bin).copied().unwrap_or(0);
            if value == 0 {
                continue;
            }
            let (bottom, y) = (y_of(below), y_of(below + value));
            // A single alert in a plot of thousands is still to be seen.
            let (y, height) = if bottom > y { (y, bottom - y) } else { (bottom.saturating_sub(1), 1) };
            let title = escape(&format!("{}: {value} {}", axis.label(bin), layer.name));
            add(
                &mut svg,
                format_args!(
                    "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{title}</title></rect>\n",
                    layer.class
                ),
            );
            below += value;
        }
    }
    day_labels(axis, height, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn day_labels(axis: &Axis, height: u64, svg: &mut String) {
    let every = axis.bins.div_ceil(MAX_LABELS).max(1);
    let room = WIDTH - LEFT;
    for bin in (0..axis.bins).step_by(every) {
        let x = LEFT + room * bin as u64 / axis.bins as u64;
        // The last one may have no room to its right.
        let (x, anchor) = if x + LABEL_WIDTH > WIDTH { (WIDTH, "end") } else { (x, "start") };
        let (y, day) = (height - 5, axis.span(bin).0);
        add(svg, format_args!("<text class=\"axis\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{day}</text>\n"));
    }
}

/// Bars for a table's row.
pub(super) fn small(axis: &Axis, layer: &Layer) -> String {
    let largest = layer.sums.iter().copied().max().unwrap_or(0).max(1);
    let mut svg = format!(
        "<svg class=\"small\" viewBox=\"0 0 {SMALL_WIDTH} {SMALL_HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(&layer.name)
    );
    let foot = SMALL_HEIGHT - 1;
    add(&mut svg, format_args!("<line class=\"grid\" x1=\"0\" x2=\"{SMALL_WIDTH}\" y1=\"{foot}\" y2=\"{foot}\"/>"));
    let bins = axis.bins as u64;
    for (bin, value) in layer.sums.iter().enumerate().filter(|(_, value)| **value > 0) {
        let (x, end) = (SMALL_WIDTH * bin as u64 / bins, SMALL_WIDTH * (bin as u64 + 1) / bins);
        let width = (end - x).saturating_sub(1).max(1);
        let height = scaled(*value, foot, largest).max(2);
        let y = foot - height;
        let title = escape(&format!("{}: {value}", axis.label(bin)));
        add(
            &mut svg,
            format_args!(
                "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{title}</title></rect>",
                layer.class
            ),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// `value` of `top`, in parts of `length`.
fn scaled(value: u64, length: u64, top: u64) -> u64 {
    let share = u128::from(value) * u128::from(length) / u128::from(top.max(1));
    u64::try_from(share).unwrap_or(length).min(length)
}

/// 1, 2 or 5 times a power of ten, so that at most [`MAX_LINES`] of it reach `largest`.
fn round_step(largest: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let step = power.saturating_mul(factor);
            if largest.div_ceil(step) <= MAX_LINES {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn add(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    svg.write_fmt(text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> Axis {
        Axis::over("2026-01-01".parse().expect("a day"), "2026-01-03".parse().expect("a day"), 60)
    }

    fn layer(class: &'static str, name: &str, sums: &[u64]) -> Layer {
        Layer { class, name: name.into(), sums: sums.to_vec() }
    }

    #[test]
    fn lines_stand_at_round_numbers() {
        for (largest, step) in
            [(1, 1), (4, 1), (5, 2), (9, 5), (20, 5), (21, 10), (4_321, 2_000), (u64::MAX, 5 * 10_u64.pow(18))]
        {
            assert_eq!(round_step(largest), step, "{largest}");
        }
    }

    #[test]
    fn bars_stand_upon_each_other_and_the_largest_fills_the_plot() {
        let svg = bars(&axis(), &[layer("low", "low", &[1, 0, 2]), layer("high", "high", &[1, 0, 2])], "by day", 130);
        // 100 units high, lines up to 4: a fourth is 25.
        assert!(svg.contains("class=\"low\" x=\"44\" y=\"83\" width=\"330\" height=\"25\""), "{svg}");
        assert!(svg.contains("class=\"high\" x=\"44\" y=\"58\" width=\"330\" height=\"25\""), "{svg}");
        assert!(svg.contains("class=\"high\" x=\"708\" y=\"8\" width=\"330\" height=\"50\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 4, "an empty day has no bar");
        assert!(svg.contains("<title>2026-01-03: 2 high</title>"));
    }

    #[test]
    fn one_among_thousands_is_seen_and_names_are_inert() {
        let hostile = layer("high", "<script>", &[1, 100_000, 0]);
        let svg = bars(&axis(), &[layer("high", "<script>", &[1, 100_000, 0])], "\"><b>", 130);
        assert!(svg.contains("height=\"1\""), "{svg}");
        assert!(!svg.contains("<script>") && !svg.contains("<b>"));
        assert!(!small(&axis(), &hostile).contains("<script>"));
    }
}
