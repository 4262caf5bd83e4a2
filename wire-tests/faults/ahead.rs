//! A client whose leader dies, and who comes to a member that has not come as far as the client: it is let in there, on its
//! first connection, as soon as there is a leader again. If it does not wait so long and goes to another member, it is left alone
//! there.
//!
//! | promise | how it would show |
//! |---|---|
//! | NoReconnectOnFailover | the member sends the client away: so would all others, and it would go round; or it takes the session of one that has given it up from where that is by then |
//! | SessionOrder | the client is shown less than it has seen |

use super::client::{Connection, Handshake};
use super::ensemble::{Ensemble, Ticket, Visit};
use super::members::{PATIENCE, until};
use super::proxy::Cut;
use super::wire;
use rustix::process::Signal;

const MEMBERS: usize = 3;

#[test]
fn a_client_that_is_ahead_of_a_member_waits_there_for_the_next_leader() {
    Ensemble::try_out(MEMBERS, 0, "", run);
}

#[test]
fn a_client_that_is_ahead_of_a_member_and_gives_it_up_is_left_alone_elsewhere() {
    // While it is alone, the member sends nobody away.
    Ensemble::try_out(MEMBERS, 0, "syncLimit=240\n", run_elsewhere);
}

/// A client of the leader, which is killed: it has seen what a member has not got, which stands still. Gives both, and the
/// client.
fn get_ahead(ensemble: &mut Ensemble) -> Result<(usize, usize, Ticket), String> {
    let leader = ensemble.start_all()?;
    let behind = (leader + 1) % MEMBERS;
    let mut visit = Visit::open(ensemble.clients()[leader])?;
    visit.create("/ahead")?;
    // The session is known there.
    let mut there = Visit::open(ensemble.clients()[behind])?;
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
    Ok((leader, behind, visit.lose()))
}

fn run(ensemble: &mut Ensemble) -> Result<(), String> {
    let (_, behind, ticket) = get_ahead(ensemble)?;
    let address = ensemble.clients()[behind];
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

fn run_elsewhere(ensemble: &mut Ensemble) -> Result<(), String> {
    let (leader, behind, ticket) = get_ahead(ensemble)?;
    let other = (0..MEMBERS).find(|member| ![leader, behind].contains(member));
    let other = other.ok_or("nobody else is there")?;
    // It is alone, and no barrier is passed.
    ensemble.kill(other);
    ensemble.signal(behind, Signal::CONT);
    let connections = |ensemble: &Ensemble| ensemble.number(behind, "zk_num_alive_connections");
    let before = connections(ensemble);
    let mut connection = Connection::open(ensemble.clients()[behind]).map_err(|error| error.to_string())?;
    connection.offer_hand(&Handshake {
        last_zxid_seen: ticket.last_zxid,
        timeout_ms: 10_000,
        session_id: ticket.session,
        password: ticket.password.clone(),
        with_read_only_byte: true,
        behind: Vec::new(),
    });
    until("the client waits", || {
        ensemble.number(behind, "zk_clients_ahead") == Some(1)
    })?;
    connection.drop_now();
    until("it is forgotten", || connections(ensemble) == before)?;
    if ensemble.number(behind, "zk_sessionless_connections_expired") != Some(0) {
        return Err("that it has hung up was not noticed".to_owned());
    }

    ensemble.network.heal();
    ensemble.start(other);
    ensemble.start(leader);
    let mut resumed = Err("nothing was tried".to_owned());
    let tried = until("the session goes on elsewhere", || {
        let known = Ticket {
            password: ticket.password.clone(),
            ..ticket
        };
        resumed = Visit::resume(ensemble.clients()[other], known, PATIENCE, || ());
        resumed.is_ok()
    });
    tried?;
    let mut visit = resumed?;
    // The member's barriers are passed.
    ensemble.await_all()?;
    visit.data("/ahead")?;
    visit.close()
}
