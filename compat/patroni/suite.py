"""
Two PostgreSQL servers whose leader Patroni elects on the ensemble: what their users do, and what becomes of it when
PostgreSQL's servers and the ensemble's end. One check builds on the others; each looks at PostgreSQL, at Patroni's REST
API, and at the znodes.
"""

import json
import socket

import psycopg2
from checks import check, eventually, finish
from cluster import SCOPE, Member
from ensemble import tell
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

ROWS = 200
ROOT = f"/service/{SCOPE}"

members = [Member("first"), Member("second")]
zookeeper = KazooClient(hosts=tell("addresses"), timeout=60)
written = set()


def node(below):
    """A znode's data and stat; nothing when it is not there."""
    try:
        return zookeeper.retry(zookeeper.get, f"{ROOT}/{below}")
    except NoNodeError:
        return None


def leader():
    """Who holds the lock, once somebody does."""
    name = eventually("there is a leader", lambda: node("leader"))[0].decode()
    return next(member for member in members if member.name == name)


def other(member):
    return next(each for each in members if each is not member)


def await_in_step():
    """Both are there, and one follows the other, so that what is acknowledged is on both: say Patroni and PostgreSQL."""

    def follows():
        state = json.loads(node("sync")[0])
        master = leader()
        return (
            state["leader"] == master.name
            and state["sync_standby"] == other(master).name
            and master.query("select pg_is_in_recovery()") == [(False,)]
            and master.query("select application_name from pg_stat_replication where sync_state = 'sync'") == [(other(master).name,)]
        )

    eventually("one leads, and the other follows in step", follows, psycopg2.Error, TypeError, KeyError)


def write(what, master=None):
    """Writes rows, one transaction each; all are acknowledged."""
    master = master or leader()
    for number in range(ROWS):
        row = f"{what} {number}"
        master.query("insert into orders values (%s)", row)
        written.add(row)


def verify(member):
    """All that was acknowledged is there, and nothing else."""
    found = [row for (row,) in member.query("select what from orders")]
    assert len(found) == len(set(found)), "a row is there twice"
    assert set(found) == written, f"{len(found)} rows, {len(written)} were acknowledged"


def verify_both():
    verify(leader())
    eventually("the other has all", lambda: other(leader()).query("select count(*) from orders") == [(len(written),)], psycopg2.Error)
    verify(other(leader()))


def timeline():
    return leader().ask()["timeline"]


def births():
    """When the lock and the members' znodes were made: others, if one has had to do so anew."""
    return [node(name)[1].czxid for name in ("leader", "members/first", "members/second")]


def await_turns():
    """Each Patroni has taken a turn that ended well after this was called: it writes where its server's log has got to."""
    for member in members:
        path = f"members/{member.name}"
        before = eventually(f"{member.name} is there", lambda: node(path))[1].mzxid
        leader().query("select pg_switch_wal()")
        leader().query("insert into turns values (1)")
        eventually(f"{member.name} takes a turn", lambda: node(path)[1].mzxid > before, TypeError)


def is_bootstrapped():
    members[0].start()
    eventually("the first leads", lambda: node("leader"))
    members[1].start()
    await_in_step()
    leader().query("create table orders (what text)")
    leader().query("create table turns (number int)")
    lock = node("leader")[1]
    assert lock.ephemeralOwner == node(f"members/{leader().name}")[1].ephemeralOwner != 0, lock
    names = set(zookeeper.get_children(ROOT))
    assert {"config", "failsafe", "initialize", "leader", "members", "status", "sync"} <= names, names
    write("first")
    verify_both()


def settings_are_changed():
    holder, turns = leader(), timeline()
    leader().ask("/config", "PATCH", {"ttl": 20, "postgresql": {"parameters": {"work_mem": "8MB"}}})
    for member in members:
        eventually(f"{member.name} has the new setting", lambda member=member: member.query("show work_mem") == [("8MB",)], psycopg2.Error)
    # A session's timeout is settled when it begins: each Patroni begins a new one, and the leader takes the lock anew.
    eventually("both have sessions of 20 s", lambda: session_timeouts().count(20_000) == 2)
    eventually("no older session is left", lambda: 30_000 not in session_timeouts())
    # While there was no lock, the other has stopped to follow: it begins again at its next turn.
    await_turns()
    await_in_step()
    assert (leader(), timeline()) == (holder, turns), "nobody else leads"
    write("second")


def session_timeouts():
    """Of all sessions, in milliseconds, as the servers show them."""
    found = []
    for address in tell("addresses").split(","):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 30) as connection, connection.makefile("rb") as answer:
            connection.sendall(b"cons")
            for line in answer.read().decode().splitlines():
                found += [int(part[3:]) for part in line.rstrip(")").split(",") if part.startswith("to=")]
    return found


def leadership_is_handed_over():
    old, turns = leader(), timeline()
    new = other(old)
    new.control("switchover", SCOPE, "--leader", old.name, "--candidate", new.name, "--force")
    eventually("the candidate leads", lambda: leader() is new)
    await_in_step()
    assert timeline() == turns + 1
    eventually("the wish is taken away once it is granted", lambda: node("failover")[0] in (b"", b"{}"))
    write("third")
    verify_both()


def leader_is_killed_of_postgresql():
    old, turns = leader(), timeline()
    write("before")
    old.kill()
    eventually("the other holds the lock", lambda: leader() is not old)
    eventually("it takes writes", lambda: leader().query("select pg_is_in_recovery()") == [(False,)], psycopg2.Error)
    verify(leader())
    write("alone")
    assert timeline() == turns + 1
    eventually("the history has the timeline that ended", lambda: json.loads(node("history")[0])[-1][0] == turns)
    old.start()
    await_in_step()
    verify_both()


def leader_is_killed_of_ensemble():
    before, turns = births(), timeline()
    killed = tell("leader")
    tell("kill", killed)
    write("meanwhile")
    await_turns()
    tell("start", killed)
    tell("await")
    await_turns()
    assert (births(), timeline()) == (before, turns), "somebody has lost the session"


def ensemble_is_out():
    before, turns, master = births(), timeline(), leader()
    for member in "123":
        tell("stop", member)
    # The leader asks the other one whether it may go on.
    eventually("it is in failsafe mode", lambda: master.ask().get("failsafe_mode_is_active"))
    write("without", master)
    for member in "123":
        tell("start", member)
    tell("await")
    eventually("failsafe mode has ended", lambda: not master.ask().get("failsafe_mode_is_active"))
    await_turns()
    await_in_step()
    assert (births(), timeline()) == (before, turns), "somebody has lost the session"
    verify_both()


def ensemble_is_out_without_failsafe():
    master = leader()
    master.ask("/config", "PATCH", {"failsafe_mode": False})
    for member in members:
        eventually(f"{member.name} knows", lambda member=member: "failsafe_mode" in member.ask("/config") and not member.ask("/config")["failsafe_mode"])
    await_turns()
    for member in "123":
        tell("stop", member)
    eventually("it does not lead without the lock", lambda: master.query("select pg_is_in_recovery()") == [(True,)], psycopg2.Error)
    for member in "123":
        tell("start", member)
    tell("await")
    await_in_step()
    write("again")
    verify_both()


def they_end():
    master = leader()
    other(master).stop()
    master.stop()
    # A leader that ends in order closes its session, so that the next one need not wait. Others let theirs run out.
    assert node("leader") is None, "the lock is still there"
    eventually("they are gone", lambda: not zookeeper.get_children(f"{ROOT}/members"))


zookeeper.start(timeout=60)
check("a cluster is made: one holds the lock, the other follows in step", is_bootstrapped)
check("settings are changed; with a new ttl come new sessions, nobody else leads", settings_are_changed)
check("patronictl hands leadership over", leadership_is_handed_over)
check("PostgreSQL's leader is killed: the other leads and has all, the first comes back", leader_is_killed_of_postgresql)
check("the ensemble's leader is killed: nobody loses the lock", leader_is_killed_of_ensemble)
check("the whole ensemble is out: in failsafe mode the leader goes on, and keeps the lock", ensemble_is_out)
check("the same without failsafe mode: the leader stands back, and leads again", ensemble_is_out_without_failsafe)
check("both are stopped: the lock is gone at once, the members by and by", they_end)
zookeeper.stop()
finish()
