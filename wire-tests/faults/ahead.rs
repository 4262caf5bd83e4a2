//! A client whose leader dies, and who comes to a member that has not come as far as the client: it is let in there, on its
//! first connection, as soon as there is a leader again.
//!
//! | promise | how it would show |
//! |---|---|
//! | NoReconnectOnFailover | the member sends the client away: so would all others, and it would go round |
//! | SessionOrder | the client is shown less than it has seen |

use super::ensemble::{Ensemble, Visit};
use super::members::PATIENCE;
use super::proxy::Cut;
use super::wire;
use rustix::process::Signal;

const MEMBERS: usize = 3;

#[test]
fn a_client_that_is_ahead_of_a_member_waits_there_for_the_next_leader() {
    Ensemble::try_out(MEMBERS, 0, "", run);
}

fn run(ensemble: &mut Ensemble) -> Result<(), String> {
    let leader = ensemble.start_all()?;
    let behind = (leader + 1) % MEMBERS;
    let address = ensemble.clients()[behind];
    let mut visit = Visit::open(ensemble.clients()[leader])?;
    visit.create("/ahead")?;
    // The session is known there.
    let mut there = Visit::open(address)?;
    there.sync()?;
    there.close()?;

    // Nothing of the leader lies in its sockets either, and nobody is elected without it.
    ensemble.part(leader, behind, Cut::Stall);
    ensemble.signal(behind, Signal::STOP);
    let set = visit.ask(wire::SET_DATA, |body| body.set("/ahead", b"seen", -1))?;
    if set.0 != 0 {
        return Err(format!("setting the data fails with {}", set.0));
    }
    ensemble.kill(leader);
    let ticket = visit.lose();
    let (session, last_zxid) = (ticket.session, ticket.last_zxid);
    // The kernel takes the handshake for it.
    let go_on = || ensemble.signal(behind, Signal::CONT);
    let resumed = Visit::resume(address, ticket, PATIENCE, go_on);
    let mut visit = resumed.map_err(|reason| format!("{reason}: the client has seen zxid {last_zxid}"))?;
    let mntr = ensemble.word(behind, "mntr");
    if !mntr.contains("zk_clients_ahead\t1\n") {
        return Err("the client was not ahead: nothing was tried".to_owned());
    }
    match visit.data("/ahead")? {
        Some((data, _)) if data == b"seen" => {}
        other => return Err(format!("SessionOrder: the client has seen more than {other:?}")),
    }
    let ticket = visit.lose();
    if ticket.session != session {
        return Err(format!(
            "its session was {session:#x}, and now it is {:#x}",
            ticket.session
        ));
    }
    Ok(())
}
