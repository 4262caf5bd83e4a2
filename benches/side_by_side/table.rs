//! The tables that a run prints, in Markdown, ready for `benches/README.md`.

use std::fmt::Write;
use std::time::Duration;

use crate::contest::{Measured, RowFigures, RowResult};
use crate::failover::{Outcome, Stroke};
use crate::figure::{Figure, Spread, middle, short, thousands};
use crate::process::Side;
use crate::sections::Findings;

/// Rows as a table: with two sides the ratio of the first to the second, else one side's figures.
pub(crate) fn rows_table(sides: &[Side], servers: usize, results: &[RowResult]) -> String {
    let members = if servers > 1 {
        format!("{servers} members: ")
    } else {
        String::new()
    };
    match sides {
        [first, second] => compared(&members, first.name(), second.name(), results),
        _ => single(&members, results),
    }
}

fn compared(members: &str, first: &str, second: &str, results: &[RowResult]) -> String {
    let mut text = format!(
        "| {members}row (sessions × in flight) | {first} ops/s | {second} ops/s | ratio (range) | target | {first} p50 / p99 / \
         p99.9 ms | {second} p50 / p99 / p99.9 ms | {first} CPU µs/op | {second} CPU µs/op | CPU ratio | worst second, \
         {first} / {second} | driver µs/op | others, cores |\n|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for result in results {
        let [ours, theirs] = &result.turns[..] else { continue };
        let both: Vec<_> = ours.iter().chain(theirs).cloned().collect();
        let ratio = |figure: &Figure| figure.ratio().map_or(String::new(), |ratio| spread(&ratio));
        let RowFigures {
            throughput,
            latency,
            tail,
            processor,
        } = &result.figures;
        let judgements =
            [("", throughput), ("p50 ", latency), ("p99 ", tail), ("CPU ", processor)].map(|(name, figure)| {
                let judgement = figure.judgement();
                if judgement.is_empty() {
                    judgement
                } else {
                    format!("{name}{judgement}")
                }
            });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {:.0} % / {:.0} % | {:.1} | {:.2} |",
            result.row.title(),
            thousands(median(ours, |turn| turn.operations_per_s)),
            thousands(median(theirs, |turn| turn.operations_per_s)),
            ratio(throughput),
            judgements
                .iter()
                .filter(|text| !text.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join("; "),
            latencies(ours),
            latencies(theirs),
            median(ours, |turn| turn.server_us),
            median(theirs, |turn| turn.server_us),
            ratio(processor),
            median(ours, |turn| turn.worst_second) * 100.0,
            median(theirs, |turn| turn.worst_second) * 100.0,
            median(&both, |turn| turn.driver_us),
            median(&both, |turn| turn.others_cores),
        );
    }
    text
}

fn single(members: &str, results: &[RowResult]) -> String {
    let mut text = format!(
        "| {members}row (sessions × in flight) | ops/s | p50 / p99 / p99.9 ms | CPU µs/op | worst second | driver µs/op \
         | others, cores | RSS MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|\n"
    );
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

/// One section, one column per side.
pub(crate) fn section_table(sides: &[Side], findings: &Findings) -> String {
    let mut text = format!("| {} |", findings.title);
    for side in sides {
        let _ = write!(text, " {} |", side.name());
    }
    text.push_str(" ratio (range) | target |\n|---|");
    text.push_str(&"--:|".repeat(sides.len() + 1));
    text.push_str("---|\n");
    for figure in &findings.figures {
        let _ = write!(text, "| {} |", figure.name);
        for side in 0..sides.len() {
            let _ = write!(text, " {} |", figure.value(side).map_or_else(|| "–".to_owned(), short));
        }
        let ratio = figure.ratio().map_or(String::new(), |ratio| spread(&ratio));
        let _ = writeln!(text, " {ratio} | {} |", figure.judgement());
    }
    text
}

fn spread(ratio: &Spread) -> String {
    let Spread { median, least, most } = ratio;
    if least == most {
        return short(*median);
    }
    format!("{} ({}–{})", short(*median), short(*least), short(*most))
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
        let figures: [Figure; 11] = [
            ("times", |outcomes| outcomes.len().to_string()),
            ("gap in acknowledged writes, ms: median / worst", |outcomes| {
                middle_and_worst(outcomes, |outcome| outcome.gap)
            }),
            ("gap in survivors' syncs, ms: median / worst", |outcomes| {
                middle_and_worst(outcomes, |outcome| outcome.sync_gap)
            }),
            ("started again, ms to the first sync: median / worst", |outcomes| {
                middle_and_worst(outcomes, |outcome| outcome.back)
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
pub(crate) fn raw(sides: &[Side], results: &[(usize, RowResult)]) -> String {
    let mut text =
        "members\trow\tside\tround\tops_per_s\tp50_ms\tp99_ms\tp999_ms\tmax_ms\tworst_second\tserver_us\tdriver_us\t\
                    others_cores\trss_bytes\n"
            .to_owned();
    for (servers, result) in results {
        for (side, turns) in sides.iter().zip(&result.turns) {
            for (round, turn) in turns.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "{servers}\t{}\t{}\t{}\t{:.1}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\t{:.2}\t{:.2}\t{:.3}\t{}",
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

fn median(turns: &[Measured], figure: fn(&Measured) -> f64) -> f64 {
    let mut figures: Vec<_> = turns.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    middle(&figures)
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
