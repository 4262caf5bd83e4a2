//! Shortens a failing sequence: steps first, in ever smaller pieces, then requests in bursts and operations in multis.

use crate::operation::{Action, Request, Step};

/// The shortest sequence found for which `fails` still holds, asking at most until `fails` answers `None` (no time left).
pub fn shortest(steps: Vec<Step>, fails: &mut dyn FnMut(&[Step]) -> Option<bool>) -> Vec<Step> {
    let mut best = steps;
    loop {
        let before = weight(&best);
        if !without_steps(&mut best, fails) || !without_parts(&mut best, fails) || weight(&best) == before {
            return best;
        }
    }
}

fn weight(steps: &[Step]) -> usize {
    steps.iter().map(|step| format!("{step}").len()).sum()
}

/// Removes runs of steps, halving their length. False when time is up.
fn without_steps(best: &mut Vec<Step>, fails: &mut dyn FnMut(&[Step]) -> Option<bool>) -> bool {
    let mut length = best.len().div_ceil(2);
    while length > 0 {
        // From the end: what a failure needs comes before it, what does not matter mostly lies in between.
        let mut end = best.len();
        while end > 0 {
            let start = end.saturating_sub(length);
            let mut candidate = best.clone();
            candidate.drain(start..end);
            match fails(&candidate) {
                None => return false,
                Some(true) => *best = candidate,
                Some(false) => {}
            }
            end = start;
        }
        length /= 2;
    }
    true
}

/// Removes single requests of bursts and single operations of multis. False when time is up.
fn without_parts(best: &mut Vec<Step>, fails: &mut dyn FnMut(&[Step]) -> Option<bool>) -> bool {
    let mut step = 0;
    while step < best.len() {
        let mut number = 0;
        while let Some(smaller) = smaller(&best[step], number) {
            let mut candidate = best.clone();
            candidate[step] = smaller;
            match fails(&candidate) {
                None => return false,
                Some(true) => *best = candidate,
                Some(false) => number += 1,
            }
        }
        step += 1;
    }
    true
}

/// The step without its part of this number, `None` when it has no more parts.
fn smaller(step: &Step, number: usize) -> Option<Step> {
    let (requests, fewest) = match &step.action {
        Action::Send(requests) => (requests, 1),
        Action::Open { behind, .. } => (behind, 0),
        _ => return None,
    };
    let mut left = number;
    let mut smaller = requests.clone();
    if requests.len() > fewest {
        if left < requests.len() {
            smaller.remove(left);
            return Some(with_requests(step, smaller));
        }
        left -= requests.len();
    }
    for request in &mut smaller {
        let Request::Multi { operations: parts, .. } = request else {
            continue;
        };
        if left < parts.len() {
            parts.remove(left);
            return Some(with_requests(step, smaller));
        }
        left -= parts.len();
    }
    None
}

fn with_requests(step: &Step, requests: Vec<Request>) -> Step {
    let mut step = step.clone();
    match &mut step.action {
        Action::Send(sent) => *sent = requests,
        Action::Open { behind, .. } => *behind = requests,
        _ => {}
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(path: &str) -> Request {
        Request::Sync {
            path: Some(path.to_owned()),
        }
    }

    fn send(requests: Vec<Request>) -> Step {
        Step {
            session: 0,
            action: Action::Send(requests),
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let mut steps: Vec<Step> = (0..40).map(|number| send(vec![sync(&number.to_string())])).collect();
        steps.push(send(vec![sync("x"), sync("needed"), sync("y")]));
        let contains = |steps: &[Step], wanted: &str| steps.iter().any(|step| step.to_string().contains(wanted));
        let short = shortest(steps, &mut |steps| {
            Some(contains(steps, "\"7\"") && contains(steps, "needed"))
        });
        let shown: Vec<String> = short.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["session 0: sync \"7\"", "session 0: sync \"needed\""]);
    }
}
