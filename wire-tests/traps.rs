//! Keeps TRAPS.md honest: each trap has a row, and rows and the scripts' headers name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::script::Script;

/// Traps in zookeeper-3.9.md §2.
const COUNT: u32 = 62;

/// `1-6, 9`: the traps that some script names.
pub(crate) fn summary(scripts: &[Arc<Script>]) -> String {
    let covered: BTreeSet<u32> = scripts.iter().flat_map(|script| script.traps.iter().copied()).collect();
    let missing: Vec<String> = (1..=COUNT)
        .filter(|trap| !covered.contains(trap))
        .map(|trap| trap.to_string())
        .collect();
    format!(
        "{} of {COUNT}; not named: {} (TRAPS.md says why)",
        covered.len(),
        missing.join(", ")
    )
}

/// Compares the table (`| number | trap | where |`) with the headers.
pub(crate) fn check(table: &Path, scripts: &[Arc<Script>]) -> Result<(), String> {
    let text = std::fs::read_to_string(table).map_err(|error| format!("{}: {error}", table.display()))?;
    let rows: BTreeMap<u32, &str> = text
        .lines()
        .filter_map(|line| {
            let number = line.strip_prefix('|')?.split('|').next()?.trim().parse().ok()?;
            Some((number, line))
        })
        .collect();
    let mut errors = Vec::new();
    for trap in 1..=COUNT {
        let Some(row) = rows.get(&trap) else {
            errors.push(format!("trap {trap} has no row"));
            continue;
        };
        for script in scripts {
            let in_row = row.contains(&format!("`{}`", script.name));
            let in_header = script.traps.contains(&trap);
            if in_row && !in_header {
                errors.push(format!(
                    "row {trap} names {}, whose header does not name the trap",
                    script.name
                ));
            }
            if in_header && !in_row {
                errors.push(format!(
                    "{} names trap {trap}, whose row does not name the script",
                    script.name
                ));
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("\n"))
    }
}
