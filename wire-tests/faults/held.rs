//! A disk that stands still under a write while others wait for the thread that it holds. They are served all the same: those
//! whose sockets it looks at, if it is the task of a client that is alone; and those whose write is on the disk and not answered
//! yet, if it is the log's, which answers the one group while the disk takes in the next.
//!
//! | promise | how it would show |
//! |---|---|
//! | Bounded | a read of another client, or a reply that is due, waits for the disk |
//! | Durable | the write is acknowledged while the disk stands still, or is lost |

use super::ensemble::{Ensemble, Visit};
use super::frozen::Frozen;
use super::members::{PATIENCE, until};
use super::wire;
use nix::libc::{SYS_fadvise64, SYS_fdatasync};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const MEMBERS: usize = 1;
/// Several ticks, after which a client that says nothing is not there.
const QUIET: Duration = Duration::from_millis(500);
/// Those that serve clients; and the log's own thread, which writes all if the disk has just been slow.
const WRITERS: [&str; 2] = ["tokio-rt-worker", "log"];
const READS: usize = 20;

#[test]
fn a_disk_that_stands_still_under_a_lone_clients_write_holds_up_no_read() {
    Ensemble::try_out(MEMBERS, 0, "", run);
}

#[test]
fn a_disk_that_stands_still_under_the_next_write_holds_up_no_reply_that_is_due() {
    Ensemble::try_out(MEMBERS, 0, "", run_next);
}

fn run(ensemble: &mut Ensemble) -> Result<(), String> {
    ensemble.start(0);
    ensemble.await_all()?;
    let address = ensemble.clients()[0];
    let mut writer = Visit::patient(address, PATIENCE)?;
    writer.create("/held")?;
    let mut reader = Visit::patient(address, PATIENCE)?;
    let (process, data) = (ensemble.process_id(0), ensemble.folder(0).join("data"));
    std::thread::sleep(QUIET);

    let is_answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let created = writer.ask(wire::CREATE, |body| body.create("/held/back", b"", 0));
            is_answered.store(true, SeqCst);
            (writer, created)
        });
        let frozen = Frozen::at_a_call(process, &WRITERS, &[SYS_fdatasync], &data)?;
        for _ in 0..READS {
            reader.data("/held")?;
        }
        if is_answered.load(SeqCst) {
            return Err("Durable: it was acknowledged before the disk had it".to_owned());
        }
        drop(frozen);
        until("the write is acknowledged", || is_answered.load(SeqCst))?;
        let (writer, created) = writing.join().expect("it does not panic");
        match created? {
            (0, _) => writer.close(),
            (error, _) => Err(format!("creating the znode fails with {error}")),
        }
    })?;
    match reader.data("/held/back")? {
        Some(_) => reader.close(),
        None => Err("Durable: the znode is not there".to_owned()),
    }
}

fn run_next(ensemble: &mut Ensemble) -> Result<(), String> {
    ensemble.start(0);
    ensemble.await_all()?;
    let address = ensemble.clients()[0];
    let visit = || Visit::patient(address, PATIENCE);
    let (mut first, mut second, mut other) = (visit()?, visit()?, visit()?);
    first.create("/next")?;
    let (process, data) = (ensemble.process_id(0), ensemble.folder(0).join("data"));

    let (stops, others_stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (answered, is_second_answered) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !stops.load(SeqCst) {
                first.ask(wire::SET_DATA, |body| body.set("/next", b"first", -1))?;
                answered.fetch_add(1, SeqCst);
            }
            first.close()
        });
        // Else the first would be alone, and its task write the log.
        let reading = scope.spawn(|| {
            while !others_stop.load(SeqCst) {
                other.data("/next")?;
            }
            Ok(())
        });
        let tried = (|| {
            let frozen = Frozen::at_a_call(process, &["log"], &[SYS_fdatasync], &data)?;
            others_stop.store(true, SeqCst);
            until("nobody reads any more", || reading.is_finished())?;
            let writing = scope.spawn(|| {
                second.create("/next/one")?;
                is_second_answered.store(true, SeqCst);
                second.close()
            });
            until("two writes wait", || {
                ensemble.number(0, "zk_outstanding_requests") == Some(2)
            })?;
            let before = answered.load(SeqCst);
            let frozen = frozen.goes_on_until(&[SYS_fadvise64], &data)?;
            until("the write that is on the disk is answered", || {
                answered.load(SeqCst) > before
            })?;
            if is_second_answered.load(SeqCst) {
                return Err("Durable: the next was acknowledged before the disk had it".to_owned());
            }
            drop(frozen);
            writing.join().expect("it does not panic")
        })();
        stops.store(true, SeqCst);
        others_stop.store(true, SeqCst);
        let ends = [writing, reading].map(|thread| thread.join().expect("it does not panic"));
        tried?;
        ends.into_iter().collect()
    })
}
