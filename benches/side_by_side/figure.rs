//! What a run has found: named figures of each side, and the targets that they are held to.

use std::fmt;

use crate::process::Side;

/// A bound on a figure: on its ratio to Apache's, or on ours alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(crate) fn is_met(self, ours: f64, ratio: f64) -> bool {
        match self {
            Target::RatioAtLeast(bound) => ratio >= bound,
            Target::RatioAtMost(bound) => ratio <= bound,
            Target::AtLeast(bound) => ours >= bound,
            Target::AtMost(bound) => ours <= bound,
        }
    }

    /// Whether it can be judged without Apache's figure.
    pub(crate) fn is_absolute(self) -> bool {
        matches!(self, Target::AtLeast(_) | Target::AtMost(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::RatioAtLeast(bound) => write!(f, "≥ {}×", short(*bound)),
            Target::RatioAtMost(bound) => write!(f, "≤ {}×", short(*bound)),
            Target::AtLeast(bound) => write!(f, "≥ {}", short(*bound)),
            Target::AtMost(bound) => write!(f, "≤ {}", short(*bound)),
        }
    }
}

/// A figure that one turn of a section has found on one side.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// What it is, with its unit.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) targets: Vec<Target>,
}

impl Reading {
    pub(crate) fn new(name: impl Into<String>, value: f64, targets: &[Target]) -> Self {
        Self {
            name: name.into(),
            value,
            targets: targets.to_vec(),
        }
    }
}

/// A figure of every side, with one value for each turn.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) turns: Vec<(Side, Vec<f64>)>,
}

impl Figure {
    /// Puts the readings of all turns together: for each side, one list per round.
    pub(crate) fn join(sides: &[(Side, Vec<Vec<Reading>>)]) -> Vec<Figure> {
        let mut figures: Vec<Figure> = Vec::new();
        for (number, (side, rounds)) in sides.iter().enumerate() {
            for reading in rounds.iter().flatten() {
                let known = figures.iter().position(|figure| figure.name == reading.name);
                let index = known.unwrap_or_else(|| {
                    figures.push(Figure {
                        name: reading.name.clone(),
                        targets: reading.targets.clone(),
                        turns: sides.iter().map(|(side, _)| (*side, Vec::new())).collect(),
                    });
                    figures.len() - 1
                });
                debug_assert_eq!(figures[index].turns[number].0, *side, "the sides stay in their order");
                figures[index].turns[number].1.push(reading.value);
            }
        }
        figures
    }

    /// The median of one side's turns; nothing if it was not measured there.
    pub(crate) fn value(&self, side: usize) -> Option<f64> {
        let (_, turns) = self.turns.get(side)?;
        (!turns.is_empty()).then(|| Spread::of(turns.clone()).median)
    }

    /// The first side's turns to those of the second that followed them.
    pub(crate) fn ratio(&self) -> Option<Spread> {
        let [(_, first), (_, second)] = &self.turns[..] else {
            return None;
        };
        let ratios: Vec<f64> = first.iter().zip(second).map(|(first, second)| first / second).collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios))
    }

    /// Every target that this run can judge, and whether it is met. Ours must be the first side.
    pub(crate) fn verdicts(&self) -> Vec<(Target, bool)> {
        let sides: Vec<Side> = self.turns.iter().map(|(side, _)| *side).collect();
        let Some(ours) = self.value(0).filter(|_| sides.first() == Some(&Side::Ours)) else {
            return Vec::new();
        };
        let ratio = self.ratio().filter(|_| sides == [Side::Ours, Side::Apache]);
        let judged = self
            .targets
            .iter()
            .filter(|target| target.is_absolute() || ratio.is_some());
        judged
            .map(|target| {
                let ratio = ratio.as_ref().map_or(f64::NAN, |ratio| ratio.median);
                (*target, target.is_met(ours, ratio))
            })
            .collect()
    }

    /// The targets with their verdicts, as a cell of a table.
    pub(crate) fn judgement(&self) -> String {
        let verdicts = self.verdicts();
        let cells = verdicts
            .iter()
            .map(|(target, met)| format!("{target} {}", if *met { "met" } else { "**MISSED**" }));
        cells.collect::<Vec<_>>().join(", ")
    }
}

/// Values of several turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let bound = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self {
            median: middle(&values),
            least: bound(values.first()),
            most: bound(values.last()),
        }
    }
}

/// The middle of sorted figures; of an even number, the mean of the two in the middle.
pub(crate) fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// Three digits that mean something, without zeros behind them.
pub(crate) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value.abs() >= 100.0 {
        return thousands(value);
    }
    let decimals = match value.abs() {
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number with its thousands apart.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
