"""kazoo, while the disk of the leader stands still: another one leads, writes go on, and nobody's session is lost."""

import os
import subprocess
import time

from ensemble import FOLDER, tell
from kazoo.client import KazooClient

STALL = FOLDER + "/stall"
LIBRARY = STALL + "/stall.so"
PATIENCE_S = 60


def client(address, noticed):
    made = KazooClient(hosts=address, timeout=30)
    made.start(timeout=PATIENCE_S)
    made.add_listener(noticed.append)
    return made


def main():
    os.makedirs(STALL, exist_ok=True)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stall.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", LIBRARY, source, "-ldl"], check=True)
    for member in "123":
        tell("stop", member)
        tell("start", member, LD_PRELOAD=LIBRARY, STALL=STALL)
        tell("await")
    leader = tell("leader")
    addresses = tell("addresses").split(",")
    noticed = []
    of_leader = client(addresses[int(leader) - 1], noticed)
    of_other = client(addresses[int(leader) % 3], noticed)
    of_other.create("/stall", b"0")
    with open(f"{FOLDER}/{leader}/pid", encoding="ascii") as pid:
        flag = f"{STALL}/{pid.read().strip()}"
    began = time.monotonic()
    open(flag, "w", encoding="ascii").close()
    try:
        stuck = of_leader.set_async("/stall", b"1")
        while (successor := tell("leader")) == leader:
            assert time.monotonic() - began < PATIENCE_S, "leadership stays where nothing becomes durable"
        took = time.monotonic() - began
        for _ in range(20):
            of_other.set("/stall", b"2")
        assert not stuck.ready(), "a server has answered a write that its own disk does not hold"
        time.sleep(3)
        assert tell("leader") == successor, "leadership is passed around"
    finally:
        os.remove(flag)
    stuck.get(timeout=PATIENCE_S)
    of_leader.sync("/stall")
    assert of_leader.get("/stall")[1].version == 21
    for each in (of_leader, of_other):
        each.remove_listener(noticed.append)
        each.stop()
    assert noticed == [], noticed
    with open(f"{FOLDER}/{leader}/log", encoding="utf-8") as log:
        assert "the disk of the log stands still" in log.read()
    return f"another one led after {took:.1f} s"


NAME = "kazoo: the leader's disk stands still, another one leads, no session is lost"
if os.environ["AGAINST"] == "apache":
    print(f"skip {NAME}: Apache's leader does not look at its disk")
else:
    try:
        print(f"ok {NAME} ({main()})")
    except Exception as error:  # noqa: BLE001, a failed check
        print(f"FAIL {NAME}: {error!r}")
        raise SystemExit(1) from error
