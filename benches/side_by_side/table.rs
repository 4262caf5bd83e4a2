//! The tables that a run prints, in Markdown, ready for `benches/README.md`.

use std::fmt::Write;
use std::time::Duration;

use crate::contest::{Measured, RowResult};
use crate::failover::{Outcome, Stroke};
use crate::footprint::Footprint;
use crate::process::Side;

/// Rows as a table: with two sides the ratio of the first to the second, else one side's figures.
pub(crate) fn rows_table(sides: &[Side], results: &[RowResult]) -> String {
    match sides {
        [first, second] => compared(first.name(), second.name(), results),
        _ => single(results),
    }
}

fn compared(first: &str, second: &str, results: &[RowResult]) -> String {
    let mut text = format!(
        "| row (sessions × in flight) | {first} ops/s | {second} ops/s | ratio (range) | {first} p50 / p99 / p99.9 ms \
         | {second} p50 / p99 / p99.9 ms | {first} CPU µs/op | {second} CPU µs/op | CPU ratio | worst second, \
         {first} / {second} | driver µs/op | others, cores |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for result in results {
        let [ours, theirs] = &result.turns[..] else { continue };
        let ratio = Ratio::of(ours, theirs, |turn| turn.operations_per_s);
        let cpu = Ratio::of(ours, theirs, |turn| turn.server_us);
        let both: Vec<_> = ours.iter().chain(theirs).cloned().collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} ({:.2}–{:.2}) | {} | {} | {:.1} | {:.1} | {:.2} | {:.0} % / {:.0} % | {:.1} | {:.2} |",
            result.row.title(),
            thousands(median(ours, |turn| turn.operations_per_s)),
            thousands(median(theirs, |turn| turn.operations_per_s)),
            ratio.median,
            ratio.least,
            ratio.most,
            latencies(ours),
            latencies(theirs),
            median(ours, |turn| turn.server_us),
            median(theirs, |turn| turn.server_us),
            cpu.median,
            median(ours, |turn| turn.worst_second) * 100.0,
            median(theirs, |turn| turn.worst_second) * 100.0,
            median(&both, |turn| turn.driver_us),
            median(&both, |turn| turn.others_cores),
        );
    }
    text
}

fn single(results: &[RowResult]) -> String {
    let mut text =
        "| row (sessions × in flight) | ops/s | p50 / p99 / p99.9 ms | CPU µs/op | worst second | driver µs/op \
                    | others, cores | RSS MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for result in results {
        for turns in &result.turns {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.1} | {:.0} % | {:.1} | {:.2} | {:.0} |",
                result.row.title(),
                thousands(median(turns, |turn| turn.operations_per_s)),
                latencies(turns),
                median(turns, |turn| turn.server_us),
                median(turns, |turn| turn.worst_second) * 100.0,
                median(turns, |turn| turn.driver_us),
                median(turns, |turn| turn.others_cores),
                median(turns, |turn| turn.resident_bytes as f64) / MIB,
            );
        }
    }
    text
}

const MIB: f64 = 1_048_576.0;

/// The memory and start-up rows, one column per side.
pub(crate) fn footprint_table(znodes: u32, weighed: &[(Side, Footprint)]) -> String {
    let mut text = format!("| {} znodes of 100 bytes |", thousands(f64::from(znodes)));
    for (side, _) in weighed {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str(if weighed.len() == 2 {
        " ratio |\n|---|"
    } else {
        "\n|---|"
    });
    text.push_str(&"--:|".repeat(weighed.len() + usize::from(weighed.len() == 2)));
    text.push('\n');
    type Figure = (&'static str, fn(&Footprint) -> f64, usize);
    let figures: [Figure; 8] = [
        ("loading, creates/s", |print| print.load_operations_per_s, 0),
        ("RSS when empty, MiB", |print| print.empty_bytes as f64 / MIB, 0),
        ("RSS when loaded, MiB", |print| print.loaded_bytes as f64 / MIB, 0),
        (
            "RSS after a restart, MiB",
            |print| print.restarted_bytes as f64 / MIB,
            0,
        ),
        ("data directory, MiB", |print| print.disk_bytes as f64 / MIB, 0),
        ("SIGTERM to exit, s", |print| print.sigterm.as_secs_f64(), 2),
        (
            "start to first reply, clean, s",
            |print| print.start_clean.as_secs_f64(),
            2,
        ),
        (
            "start to first reply, after SIGKILL under writes, s",
            |print| print.start_after_kill.as_secs_f64(),
            2,
        ),
    ];
    for (name, figure, decimals) in figures {
        let _ = write!(text, "| {name} |");
        for (_, print) in weighed {
            let _ = write!(text, " {:.decimals$} |", figure(print));
        }
        if let [(_, first), (_, second)] = weighed {
            let _ = write!(text, " {:.2} |", figure(first) / figure(second));
        }
        text.push('\n');
    }
    text
}

/// The failovers, one column per side: median and worst of the gaps, sums of the rest.
pub(crate) fn failover_table(suffered: &[(Side, Vec<Outcome>)]) -> String {
    let mut text = "| leader |".to_owned();
    for (side, _) in suffered {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(suffered.len()));
    text.push('\n');
    for (stroke, name) in [(Stroke::Kill, "killed"), (Stroke::HandOver, "hands over")] {
        let of = |outcomes: &[Outcome]| -> Vec<Outcome> {
            outcomes
                .iter()
                .filter(|outcome| outcome.stroke == stroke)
                .copied()
                .collect()
        };
        type Figure = (&'static str, fn(&[Outcome]) -> String);
        let figures: [Figure; 9] = [
            ("times", |outcomes| outcomes.len().to_string()),
            ("gap in acknowledged writes, ms: median / worst", |outcomes| {
                middle_and_worst(outcomes, |outcome| outcome.gap)
            }),
            ("slowest acknowledged write, ms: median / worst", |outcomes| {
                middle_and_worst(outcomes, |outcome| outcome.slowest)
            }),
            ("connections lost: its own / survivors' sessions", |outcomes| {
                sums(outcomes, |outcome| (outcome.cut_on_leader, outcome.cut_on_survivors))
            }),
            ("writes of unknown outcome: its own / survivors' sessions", |outcomes| {
                sums(outcomes, |outcome| {
                    (outcome.unknown_on_leader, outcome.unknown_on_survivors)
                })
            }),
            ("sessions expired / error replies", |outcomes| {
                sums(outcomes, |outcome| (outcome.expired, outcome.errors))
            }),
            ("acknowledged writes", |outcomes| {
                let sum: u64 = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
                thousands(sum as f64)
            }),
            ("of them lost / writes applied twice", |outcomes| {
                sums(outcomes, |outcome| (outcome.lost, outcome.doubled))
            }),
            ("gaps, ms", |outcomes| {
                let gaps: Vec<String> = outcomes
                    .iter()
                    .map(|outcome| outcome.gap.as_millis().to_string())
                    .collect();
                gaps.join(" ")
            }),
        ];
        for (figure, of_side) in figures {
            let _ = write!(text, "| {name}: {figure} |");
            for (_, outcomes) in suffered {
                let _ = write!(text, " {} |", of_side(&of(outcomes)));
            }
            text.push('\n');
        }
    }
    text
}

fn middle_and_worst(outcomes: &[Outcome], figure: fn(&Outcome) -> Duration) -> String {
    let mut figures: Vec<f64> = outcomes
        .iter()
        .map(|outcome| figure(outcome).as_secs_f64() * 1e3)
        .collect();
    figures.sort_by(f64::total_cmp);
    format!(
        "{:.0} / {:.0}",
        middle(&figures),
        figures.last().copied().unwrap_or(f64::NAN)
    )
}

fn sums(outcomes: &[Outcome], figures: fn(&Outcome) -> (u32, u32)) -> String {
    let add = |(first, second): (u32, u32), (more, and_more): (u32, u32)| (first + more, second + and_more);
    let (first, second) = outcomes.iter().map(figures).fold((0, 0), add);
    format!("{first} / {second}")
}

/// One line per turn, tab separated, for scripts.
pub(crate) fn raw(sides: &[Side], results: &[RowResult]) -> String {
    let mut text = "row\tside\tround\tops_per_s\tp50_ms\tp99_ms\tp999_ms\tmax_ms\tworst_second\tserver_us\tdriver_us\t\
                    others_cores\trss_bytes\n"
        .to_owned();
    for result in results {
        for (side, turns) in sides.iter().zip(&result.turns) {
            for (round, turn) in turns.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "{}\t{}\t{}\t{:.1}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\t{:.2}\t{:.2}\t{:.3}\t{}",
                    result.row,
                    side.name(),
                    round + 1,
                    turn.operations_per_s,
                    turn.p50_ms,
                    turn.p99_ms,
                    turn.p999_ms,
                    turn.max_ms,
                    turn.worst_second,
                    turn.server_us,
                    turn.driver_us,
                    turn.others_cores,
                    turn.resident_bytes,
                );
            }
        }
    }
    text
}

/// What `--check` holds a comparison of ours with Apache to; each line is something that is behind.
pub(crate) fn shortfalls(results: &[RowResult], weighed: &[(Side, Footprint)]) -> Vec<String> {
    let mut behind = Vec::new();
    for result in results {
        let [ours, theirs] = &result.turns[..] else { continue };
        let ratio = Ratio::of(ours, theirs, |turn| turn.operations_per_s).median;
        if ratio < 1.0 {
            behind.push(format!("{}: {ratio:.2} of Apache's throughput", result.row.title()));
        }
    }
    if let [(_, ours), (_, theirs)] = weighed {
        let share = ours.loaded_bytes as f64 / theirs.loaded_bytes as f64;
        if share > 0.2 {
            behind.push(format!("memory: {share:.2} of Apache's RSS, the bound is 0.20"));
        }
        for (name, start) in [("clean", ours.start_clean), ("after SIGKILL", ours.start_after_kill)] {
            if start.as_secs_f64() > 2.0 {
                behind.push(format!(
                    "start-up {name}: {:.2} s, the bound is 2 s",
                    start.as_secs_f64()
                ));
            }
        }
    }
    behind
}

struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    /// The ratio of turns that followed each other, and how it spread over the rounds.
    fn of(first: &[Measured], second: &[Measured], figure: fn(&Measured) -> f64) -> Self {
        let mut ratios: Vec<_> = first
            .iter()
            .zip(second)
            .map(|(first, second)| figure(first) / figure(second))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let bound = |ratio: Option<&f64>| ratio.copied().unwrap_or(f64::NAN);
        Self {
            median: middle(&ratios),
            least: bound(ratios.first()),
            most: bound(ratios.last()),
        }
    }
}

fn median(turns: &[Measured], figure: fn(&Measured) -> f64) -> f64 {
    let mut figures: Vec<_> = turns.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    middle(&figures)
}

/// The middle of sorted figures; of an even number, the mean of the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

fn latencies(turns: &[Measured]) -> String {
    let milliseconds = |figure: f64| {
        if figure < 1.0 {
            format!("{figure:.2}")
        } else {
            format!("{figure:.1}")
        }
    };
    let figures = [
        median(turns, |turn| turn.p50_ms),
        median(turns, |turn| turn.p99_ms),
        median(turns, |turn| turn.p999_ms),
    ];
    figures.map(milliseconds).join(" / ")
}

fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
