//! What a run counts and times: operations, their latencies, the seconds that they fall into.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::measure::Sample;

/// What a row measured.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the write of a request, or from when it fell due, to the read of its reply.
    pub(crate) latency: Histogram<u32>,
    /// Operations answered in each whole second of the measurement.
    pub(crate) per_second: Vec<u64>,
    /// With [`Plan::Beside`]: each operation.
    pub(crate) each: Vec<Beat>,
    pub(crate) before: Sample,
    pub(crate) after: Sample,
}

/// One operation: when it was sent, or fell due, and when it was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) due: Instant,
    pub(crate) answered: Instant,
}

/// When a run starts to count, and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    Timed {
        warm_up: Duration,
        measured: Duration,
    },
    /// Counts from the start, until the load has nothing more to ask.
    UntilExhausted,
    /// Likewise, and keeps each operation: for few, beside something else.
    Beside,
}

/// Counts and times what falls into the measured part of a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    plan: Plan,
    epoch: Instant,
    phase: Phase,
    started: Instant,
    elapsed: Duration,
    operations: u64,
    latency: Histogram<u32>,
    per_second: Vec<u64>,
    each: Vec<Beat>,
    before: Sample,
    after: Sample,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    Done,
}

/// A histogram of nanoseconds: a microsecond to ten minutes, to three digits.
pub(crate) fn latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds are constants")
}

impl Recorder {
    pub(crate) fn new(plan: Plan, sample: &dyn Fn() -> Sample) -> Self {
        let now = Instant::now();
        let phase = if matches!(plan, Plan::UntilExhausted | Plan::Beside) {
            Phase::Measuring
        } else {
            Phase::WarmUp
        };
        let first = sample();
        Self {
            plan,
            epoch: now,
            phase,
            started: now,
            elapsed: Duration::ZERO,
            operations: 0,
            latency: latencies(),
            per_second: Vec::new(),
            each: Vec::new(),
            before: first,
            after: first,
        }
    }

    /// Moves from phase to phase as time passes; returns whether the measurement is over.
    pub(crate) fn advance(&mut self, sample: &dyn Fn() -> Sample) -> bool {
        if let Plan::Timed { warm_up, measured } = self.plan {
            if self.phase == Phase::WarmUp && self.epoch.elapsed() >= warm_up {
                (self.phase, self.started, self.before) = (Phase::Measuring, Instant::now(), sample());
            }
            if self.phase == Phase::Measuring && self.started.elapsed() >= measured {
                self.stop(sample);
            }
        }
        self.phase == Phase::Done
    }

    fn stop(&mut self, sample: &dyn Fn() -> Sample) {
        (self.phase, self.elapsed, self.after) = (Phase::Done, self.started.elapsed(), sample());
    }

    /// Counts one operation that took from `sent`, or from when it was due, to `now`.
    pub(crate) fn record(&mut self, sent: Instant, now: Instant) {
        if self.phase != Phase::Measuring {
            return;
        }
        self.operations += 1;
        self.latency
            .saturating_record(now.saturating_duration_since(sent).as_nanos() as u64);
        if matches!(self.plan, Plan::Beside) {
            self.each.push(Beat {
                due: sent,
                answered: now,
            });
        }
        let second = now.saturating_duration_since(self.started).as_secs() as usize;
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += 1;
    }

    pub(crate) fn finish(mut self, sample: &dyn Fn() -> Sample) -> Run {
        if self.phase != Phase::Done {
            self.stop(sample);
        }
        // The last second is not a whole one, but for a run of whole seconds it has at most a poll's worth in it.
        self.per_second.truncate(self.elapsed.as_secs() as usize);
        Run {
            operations: self.operations,
            elapsed: self.elapsed,
            latency: self.latency,
            per_second: self.per_second,
            each: self.each,
            before: self.before,
            after: self.after,
        }
    }
}
