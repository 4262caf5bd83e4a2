//! A member whose store stands still, and nothing else of it: it takes no more than it may hold, the others go on, and it
//! catches up.
//!
//! | promise | how it would show |
//! |---|---|
//! | Bounded | the state of the member that cannot store it grows beyond its `memoryBudget`; it refuses nothing |
//! | Durable | a value is missing, on that member too, once it has caught up |

use super::ensemble::{Ensemble, Role, Visit};
use super::frozen::Frozen;
use super::members::until;
use super::wire;
use nix::libc::{SYS_pwrite64, SYS_write, SYS_writev};
use std::fs;

const MEMBERS: usize = 3;
/// Small, so that little has to be written.
const BUDGET_MIB: u64 = 32;
const VALUE_BYTES: usize = 40 << 10;
/// 80 MB: more than a member may hold without storing it, and than waits to be applied.
const ZNODES: usize = 2000;

#[test]
fn a_member_whose_store_stands_still_takes_no_more_than_it_may_and_catches_up() {
    let settings = format!("memoryBudget={BUDGET_MIB}MiB\n");
    Ensemble::try_out(MEMBERS, 0, &settings, run);
}

fn path(number: usize) -> String {
    format!("/behind/{number}")
}

fn value(number: usize) -> Vec<u8> {
    let line = format!("znode {number}, ");
    line.bytes().cycle().take(VALUE_BYTES).collect()
}

fn run(ensemble: &mut Ensemble) -> Result<(), String> {
    let leader = ensemble.start_all()?;
    let behind = (leader + 1) % MEMBERS;
    let mut visit = Visit::open(ensemble.clients()[leader])?;
    visit.create("/behind")?;

    // It stores that soon.
    let data = ensemble.folder(behind).join("data");
    let writes = [SYS_write, SYS_writev, SYS_pwrite64];
    let frozen = Frozen::at_a_call(ensemble.process_id(behind), &["store"], &writes, &data)?;
    for number in 0..ZNODES {
        let created = visit.ask(wire::CREATE, |body| body.create(&path(number), &value(number), 0))?;
        if created.0 != 0 {
            return Err(format!("creating znode {number} fails with {}", created.0));
        }
    }
    // Heartbeats make the leader ask again and again.
    until("the member refuses entries", || {
        ensemble
            .number(behind, "zk_appends_refused")
            .is_some_and(|refused| refused > 0)
    })?;
    let held = ensemble
        .number(behind, "zk_memory_bytes")
        .ok_or("it does not say what it holds")?;
    if held > BUDGET_MIB << 20 {
        return Err(format!("Bounded: it holds {held} bytes"));
    }
    if ensemble.role(leader) != Role::Leader {
        return Err("the leader is another one: nothing was done to it".to_owned());
    }
    let log = fs::read_to_string(ensemble.folder(behind).join("log")).unwrap_or_default();
    if !log.contains("does not take all that its leader sends") {
        return Err("it does not say so in its log".to_owned());
    }

    drop(frozen);
    until("it has caught up", || {
        ensemble.number(behind, "zk_znode_count") == ensemble.number(leader, "zk_znode_count")
    })?;
    let mut there = Visit::open(ensemble.clients()[behind])?;
    there.sync()?;
    for number in 0..ZNODES {
        let found = there.data(&path(number))?.map(|(data, _)| data);
        if found != Some(value(number)) {
            return Err(format!("Durable: znode {number} is not there as written"));
        }
    }
    there.close()?;
    visit.close()
}
