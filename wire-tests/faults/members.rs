//! Members come and go under load, and no client notices: each writes over one connection from the first step to the last.
//!
//! On Apache's it would not pass: there, removing the leader costs an election and every connection.

use super::ensemble::{Ensemble, Role, Visit};
use super::{from_environment, prepare, register_path, wire};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What has not come to pass after so long never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Three members, and one that joins them.
const MEMBERS: usize = 3;
const NEWCOMER: usize = 3;
/// Clients may change the members, and need no right to.
const SETTINGS: &str = "reconfigEnabled=true\nskipACL=yes\n";

#[test]
fn members_come_and_go_under_load_and_no_client_notices() {
    let rounds = from_environment("MEMBERS_ROUNDS", 1);
    Ensemble::try_out(MEMBERS + 1, 1, SETTINGS, |ensemble| run(ensemble, rounds));
}

/// Newcomers are heard by their leader before they are members, and so one server becomes two, and two become four.
#[test]
fn an_ensemble_of_one_grows() {
    let settings = format!("{SETTINGS}standaloneEnabled=false\n");
    Ensemble::try_out(4, 3, &settings, grow);
}

fn grow(ensemble: &mut Ensemble) -> Result<(), String> {
    ensemble.start(0);
    until("it leads itself", || ensemble.role(0) == Role::Leader)?;
    prepare(ensemble.clients()[0])?;
    match ask(ensemble, ensemble.line(1), "")? {
        (wire::NEW_CONFIG_NO_QUORUM, _) => {}
        other => return Err(format!("nobody has heard of the second, but: {other:?}")),
    }
    for newcomers in [&[1][..], &[2, 3]] {
        newcomers.iter().for_each(|newcomer| ensemble.start(*newcomer));
        let lines: Vec<_> = newcomers.iter().map(|newcomer| ensemble.line(*newcomer)).collect();
        until("the newcomers are heard, and taken in", || {
            reconfigure(ensemble, &lines.join(","), "").is_ok()
        })?;
        for newcomer in newcomers {
            until("the newcomer follows", || ensemble.role(*newcomer) == Role::Follower)?;
        }
    }
    ensemble.await_votes()?;
    ensemble.kill(0);
    until("one of the newcomers leads", || {
        (1..4).any(|member| ensemble.role(member) == Role::Leader)
    })?;
    let mut visit = Visit::open(ensemble.clients()[3])?;
    visit.sync()?;
    let is_there = visit.data(&register_path(0))?.is_some();
    visit.close()?;
    if is_there {
        Ok(())
    } else {
        Err("the newcomers were not given the data".into())
    }
}

fn run(ensemble: &mut Ensemble, rounds: u64) -> Result<(), String> {
    (0..MEMBERS).for_each(|member| ensemble.start(member));
    for member in 0..MEMBERS {
        until("it follows or leads", || ensemble.role(member) != Role::Neither)?;
    }
    prepare(ensemble.clients()[0])?;
    // The first two are never killed, and their clients are to notice nothing.
    let addresses = [ensemble.clients()[0], ensemble.clients()[1]];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..addresses.len())
            .map(|number| {
                let (stop, address) = (&stop, addresses[number]);
                scope.spawn(move || write(address, number, stop))
            })
            .collect();
        let outcome = (0..rounds).try_for_each(|_| change(ensemble));
        stop.store(true, Ordering::Relaxed);
        let written: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer reports, it does not panic"))
            .collect();
        outcome?;
        for written in written {
            let written = written?;
            if written < 100 {
                return Err(format!("only {written} writes: nothing was tested"));
            }
        }
        Ok(())
    })
}

/// One write after the other; none may fail, and none be done twice.
fn write(address: std::net::SocketAddr, number: usize, stop: &AtomicBool) -> Result<i32, String> {
    let told = |reason: String| format!("the client of server {}: {reason}", number + 1);
    let path = register_path(number);
    let mut visit = Visit::open(address).map_err(told)?;
    let before = visit.data(&path).map_err(told)?.map_or(0, |(_, stat)| stat.version);
    let mut version = before;
    while !stop.load(Ordering::Relaxed) {
        let value = u64::try_from(version + 1).unwrap_or_default();
        let answer = visit.ask(wire::SET_DATA, |body| {
            body.set(&path, value.to_string().as_bytes(), version)
        });
        match answer.map_err(told)? {
            (0, _) => version += 1,
            (error, _) => return Err(told(format!("write {value} fails with {error}"))),
        }
    }
    visit.close().map_err(told)?;
    Ok(version - before)
}

/// Every kind of change, back to where it began.
fn change(ensemble: &mut Ensemble) -> Result<(), String> {
    let observer = ensemble.line(NEWCOMER).replace(":participant;", ":observer;");
    ensemble.start(NEWCOMER);
    reconfigure(ensemble, &observer, "")?;
    until("the newcomer observes", || ensemble.role(NEWCOMER) == Role::Observer)?;
    reconfigure(ensemble, ensemble.line(NEWCOMER), "")?;
    until("the newcomer follows", || ensemble.role(NEWCOMER) == Role::Follower)?;

    let leader = ensemble.leader()?;
    reconfigure(ensemble, "", &(leader + 1).to_string())?;
    until("another one leads", || {
        ensemble.role(leader) == Role::Observer && ensemble.leader().is_ok_and(|now| now != leader)
    })?;
    reconfigure(ensemble, ensemble.line(leader), "")?;
    until("the former leader follows", || ensemble.role(leader) == Role::Follower)?;

    let victim = if ensemble.leader()? == 2 { NEWCOMER } else { 2 };
    // It was removed and added a moment ago: with the files of in between, it would not start.
    files_follow(ensemble, &[victim])?;
    ensemble.kill(victim);
    ensemble.wipe(victim);
    ensemble.start(victim);
    until("the wiped member follows again", || {
        ensemble.role(victim) == Role::Follower
    })?;

    ensemble.kill(victim);
    reconfigure(ensemble, "", &(victim + 1).to_string())?;
    let strangers =
        "server.7=127.0.0.1:1:2;3,server.8=127.0.0.1:1:2;4,server.9=127.0.0.1:1:2;5,server.10=127.0.0.1:1:2;6";
    match ask(ensemble, strangers, "")? {
        (wire::NEW_CONFIG_NO_QUORUM, _) => {}
        other => return Err(format!("strangers are no quorum, but: {other:?}")),
    }
    files_follow(ensemble, &[0, 1])?;

    // Back to the first three. Who was removed is told so by its files, and would not start with them.
    ensemble.wipe(victim);
    ensemble.configure(victim);
    if victim == 2 {
        let back = ensemble.line(2).to_owned();
        ensemble.start(2);
        reconfigure(ensemble, &back, "")?;
        until("the third is back", || ensemble.role(2) == Role::Follower)?;
        reconfigure(ensemble, "", "4")?;
        until("a former member is no leader", || {
            ensemble.role(NEWCOMER) == Role::Observer
        })?;
        ensemble.kill(NEWCOMER);
        ensemble.wipe(NEWCOMER);
        ensemble.configure(NEWCOMER);
    }
    Ok(())
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > PATIENCE {
            return Err(format!("not after {} s: {what}", PATIENCE.as_secs()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn ask(ensemble: &Ensemble, joining: &str, leaving: &str) -> Result<(i32, Vec<u8>), String> {
    let mut visit = Visit::open(ensemble.clients()[0])?;
    let answer = visit.ask(wire::RECONFIG, |body| {
        body.string(Some(joining));
        body.string(Some(leaving));
        body.string(None);
        body.long(-1);
    })?;
    visit.close()?;
    Ok(answer)
}

fn reconfigure(ensemble: &Ensemble, joining: &str, leaving: &str) -> Result<(), String> {
    match ask(ensemble, joining, leaving)? {
        (0, _) => Ok(()),
        (error, _) => Err(format!("reconfig +{joining:?} -{leaving:?}: error {error}")),
    }
}

/// zoo.cfg points to a file that names the members of now.
fn files_follow(ensemble: &Ensemble, members: &[usize]) -> Result<(), String> {
    let mut visit = Visit::open(ensemble.clients()[0])?;
    let (config, _) = visit.data("/zookeeper/config")?.ok_or("there is no configuration")?;
    visit.close()?;
    let config = String::from_utf8_lossy(&config).into_owned();
    let (servers, version) = config
        .rsplit_once("\nversion=")
        .ok_or("the configuration has no version")?;
    for member in members {
        let folder = ensemble.folder(*member);
        let dynamic = folder.join(format!("zoo.cfg.dynamic.{version}"));
        until("the files name the members of now", || {
            let text = fs::read_to_string(folder.join("zoo.cfg")).unwrap_or_default();
            let has_lines = text.lines().any(|line| line.starts_with("server."));
            let points = text
                .lines()
                .any(|line| line == format!("dynamicConfigFile={}", dynamic.display()));
            points && !has_lines && fs::read_to_string(&dynamic).is_ok_and(|written| written == servers)
        })?;
    }
    Ok(())
}
