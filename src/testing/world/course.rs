//! The course of a run beside its working day: what must be there before, and the audit behind it.

use super::{Happening, World};
use crate::testing::checker::{Request, What};
use crate::testing::client::Phase;
use crate::testing::workload::{DIRECTORIES, REGISTERS, Worker, Workload, children, get};

impl World {
    /// The znodes that the workloads need.
    pub(super) fn prepare(&mut self) {
        let mut first = Worker::new(Workload::Quiet, 0);
        let creates: Vec<_> = DIRECTORIES
            .iter()
            .chain(&REGISTERS)
            .map(|path| Request::Create {
                path: (*path).to_owned(),
                value: first.value(),
                ephemeral: false,
                sequential: false,
            })
            .collect();
        let client = self.add_client(first, 20_000, None);
        self.clients[client].rests = true;
        self.clients[client].orders.extend(creates);
        self.run_until("the first znodes are there", move |world| {
            world.clients[client].is_done()
        });
    }

    /// No more faults; everybody comes back.
    pub(super) fn heal(&mut self) {
        self.is_stormy = false;
        self.calendar
            .retain(|_, happening| !matches!(happening, Happening::Fault | Happening::Heal(_)));
        self.cuts.clear();
        for member in 0..self.members.len() {
            self.members[member].slow_disk = (0, 0);
            if self.members[member].is_failing {
                // The order to fail was not carried out yet; the disk was replaced in time.
                self.crash(member, false);
                self.after(1, Happening::Start(member));
            }
            for peer in 0..member {
                self.after(1_000, Happening::Link { a: member, b: peer });
            }
        }
        // Who stands still wakes up at his time: what has come for him meanwhile waits until then.
        let awake_us = self
            .members
            .iter()
            .map(|member| member.paused_until_us)
            .max()
            .unwrap_or(0);
        self.run_until("all members are awake", |world| world.recorder.now_us > awake_us);
        self.run_until("all members are back and serve", World::all_serve);
    }

    /// The terms in which the members are; one leader leads while they stay the same.
    fn terms(&self) -> Vec<u64> {
        let running = self.members.iter().filter_map(|member| member.running.as_ref());
        running.map(|running| running.standing().term).collect()
    }

    /// What is left when all is quiet is looked at on every member.
    pub(super) fn audit(&mut self) {
        for client in &mut self.clients {
            client.rests = true;
        }
        let idle = |world: &World| {
            let mut clients = world.clients.iter();
            clients.all(|client| client.is_done() && client.phase == Phase::Open)
        };
        self.run_until("all clients have their answers", idle);
        // Whoever went away without a word has been missed behind this: the longest timeout and the grace that leaders give, by
        // the clock of one whose ticks come late, as those of a busy one do: none is made up for, so its time goes slower.
        let longest_us = 3 * (4_000_000 + 500_000);
        let terms = self.terms();
        if self.clients.iter().any(|client| !client.abandoned.is_empty()) {
            let end_us = self.recorder.now_us + longest_us;
            self.run_until("abandoned sessions are over", |world| world.recorder.now_us >= end_us);
        }
        for client in 0..self.clients.len() {
            while !self.clients[client].abandoned.is_empty() {
                let wishes = self.clients[client].leave(&mut self.recorder);
                self.fulfil(client, wishes);
                self.clients[client].ask_about_abandoned();
                let session = self.clients[client].ticket.map(|ticket| ticket.session);
                // A new leader would have given them all their time again.
                if let Some(session) = session.filter(|_| self.terms() == terms) {
                    self.recorder.see(What::Overdue { session });
                }
                self.run_until("abandoned sessions are asked about", idle);
            }
        }
        for member in 0..self.members.len() {
            let worker = Worker::new(Workload::Quiet, 1000 + member);
            let auditor = self.add_client(worker, 20_000, Some(member));
            self.clients[auditor].rests = true;
            let mut orders = vec![Request::Sync];
            orders.extend(DIRECTORIES.iter().map(|path| children(path, false)));
            orders.extend(REGISTERS.iter().map(|path| get(path, false)));
            orders.extend(
                (0..self.scenario.clients * 4)
                    .map(|number| get(&format!("/e/{}-{}", number / 4 + 1, number % 4), false)),
            );
            self.clients[auditor].orders.extend(orders);
        }
        self.run_until("the audit is over", idle);
        // Who can still write was there all the time.
        for client in &mut self.clients {
            let value = client.worker.value();
            let path = REGISTERS[0].to_owned();
            client.orders.push_back(Request::Set {
                path,
                value,
                version: -1,
            });
        }
        self.run_until("the last words are said", idle);
    }
}
