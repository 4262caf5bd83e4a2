//! A disk that stands still under the write of a client that is alone, whose task writes the log itself: it holds the thread
//! that looks at all sockets. Others are served all the same.
//!
//! | promise | how it would show |
//! |---|---|
//! | Bounded | a read of another client waits for the disk |
//! | Durable | the write is acknowledged while the disk stands still, or is lost |

use super::ensemble::{Ensemble, Visit};
use super::frozen::Frozen;
use super::members::{PATIENCE, until};
use super::wire;
use nix::libc::SYS_fdatasync;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
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
