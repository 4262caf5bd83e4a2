"""kazoo, while an operator hands leadership over by the admin command: nobody's client notices. Ours alone has the command."""

import json
import os
import urllib.error
import urllib.request

from ensemble import FOLDER, tell
from kazoo.client import KazooClient


def ask(member, authorization="ip"):
    """HTTP's status, and the answer."""
    with open(f"{FOLDER}/{member}/admin", encoding="ascii") as port:
        address = f"http://127.0.0.1:{port.read().strip()}/commands/hand_over"
    request = urllib.request.Request(address, method="POST")
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def client(address, noticed):
    made = KazooClient(hosts=address, timeout=30)
    made.start(timeout=60)
    made.add_listener(noticed.append)
    return made


def main():
    leader = tell("leader")
    status, answer = ask(leader, authorization=None)
    assert status == 401 and answer["error"], (status, answer)
    noticed = []
    clients = [client(address, noticed) for address in tell("addresses").split(",")]
    clients[0].ensure_path("/hand-over")
    for turn in range(5):
        writes = [each.set_async("/hand-over", b"x") for each in clients for _ in range(20)]
        status, answer = ask(leader)
        assert status == 200 and answer["error"] is None, (status, answer)
        assert str(answer["previous_leader"]) == leader != str(answer["leader"]), answer
        for write in writes:
            write.get(timeout=60)
        status, refused = ask(leader)
        assert status == 200 and f"server {answer['leader']} does" in refused["error"], (turn, refused)
        leader = str(answer["leader"])
        assert tell("leader") == leader
    assert clients[0].get("/hand-over")[1].version == 5 * 60
    for each in clients:
        each.remove_listener(noticed.append)
        each.stop()
    assert noticed == [], noticed


NAME = "kazoo: leadership is handed over five times under load, no client notices and no write is lost"
if os.environ["AGAINST"] == "apache":
    print(f"skip {NAME}: Apache's server has no such command")
else:
    try:
        main()
        print(f"ok {NAME}")
    except Exception as error:  # noqa: BLE001, a failed check
        print(f"FAIL {NAME}: {error!r}")
        raise SystemExit(1) from error
