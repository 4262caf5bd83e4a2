"""Read-only mode, byte by byte: what a server without a leader answers, and to whom."""

import os
import socket
import struct
import subprocess
import time

TOOL = os.environ["REPOSITORY"] + "/compat/support/ensemble"
FOLDER = os.environ["ENSEMBLE"]
IS_APACHE = os.environ["AGAINST"] == "apache"
PATIENCE_S = 60
NO_NODE, NOT_READ_ONLY, UNIMPLEMENTED = -101, -119, -6
CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, SET_ACL, SYNC, PING = 1, 2, 3, 4, 5, 7, 9, 11
CHECK, MULTI, CREATE2, RECONFIG, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL, MULTI_READ = 13, 14, 15, 16, 19, 20, 21, 22
AUTH, SET_WATCHES, ADD_WATCH, WHO_AM_I, CLOSE = 100, 101, 106, 107, -11
EXPIRED = (0, 0, bytes(16), True)


def tell(*words):
    return subprocess.run([TOOL, FOLDER, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def text(value):
    return struct.pack(">i", len(value)) + value.encode()


def create_body(path, flags=0):
    acl = struct.pack(">ii", 1, 31) + text("world") + text("anyone")
    return text(path) + struct.pack(">i", 1) + b"x" + acl + struct.pack(">i", flags)


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(PATIENCE_S)

    def send(self, body):
        self.socket.sendall(struct.pack(">i", len(body)) + body)

    def take(self, count):
        taken = b""
        while len(taken) < count:
            try:
                more = self.socket.recv(count - len(taken))
            except ConnectionResetError:
                more = b""
            if not more:
                assert not taken, f"closed in the middle of a frame, after {taken!r}"
                return None
            taken += more
        return taken

    def receive(self):
        """A frame, or None when the server has closed the connection."""
        length = self.take(4)
        return None if length is None else self.take(struct.unpack(">i", length)[0])

    def open(self, read_only=True, session=0, password=bytes(16), timeout=10000, zxid=0):
        """(timeout, session, password, read-only) of the answer, or None for a closed connection."""
        body = struct.pack(">iqiqi", 0, zxid, timeout, session, len(password)) + password
        self.send(body if read_only is None else body + bytes([read_only]))
        answer = self.receive()
        if answer is None:
            return None
        assert len(answer) == 37, f"an answer of {len(answer)} bytes"
        _, timeout, session, length = struct.unpack(">iiqi", answer[:20])
        assert length == 16, f"a password of {length} bytes"
        return timeout, session, answer[20:36], answer[36] == 1

    def ask(self, operation, body=b"", xid=1):
        """(xid, zxid, error, body) of the reply."""
        self.send(struct.pack(">ii", xid, operation) + body)
        reply = self.receive()
        assert reply is not None, f"operation {operation}: closed"
        return *struct.unpack(">iqi", reply[:16]), reply[16:]


def word(address, name):
    connection = Connection(address)
    connection.socket.sendall(name.encode())
    answer = b""
    while more := connection.socket.recv(4096):
        answer += more
    return answer.decode()


def await_word(address, name, wanted):
    deadline = time.monotonic() + PATIENCE_S
    while (answer := word(address, name)) != wanted:
        assert time.monotonic() < deadline, f"{name} answers {answer!r}, not {wanted!r}"
        time.sleep(0.05)


failed = False


def check(name):
    def run(body):
        global failed
        try:
            body()
            print(f"ok {name}", flush=True)
        except Exception as error:  # noqa: BLE001, a failed check
            failed = True
            print(f"FAIL {name}: {error!r}", flush=True)

    return run


def equal(found, wanted, what=""):
    assert found == wanted, f"{what} {found!r} instead of {wanted!r}"


alone = tell("addresses").split(",")[0]
# A session of the ensemble with an ephemeral, whose client loses its server.
owner = Connection(alone)
of_ensemble = owner.open(read_only=False, timeout=60000)
equal(owner.ask(CREATE, create_body("/read-only"))[2], 0)
equal(owner.ask(CREATE, create_body("/read-only-ephemeral", 1))[2], 0)
last_zxid = owner.ask(GET_DATA, text("/read-only") + b"\0")[1]
equal(word(alone, "isro"), "rw")
for member in "23":
    tell("stop", member)
await_word(alone, "isro", "ro")


@check("who has a session of the ensemble is sent away when read-only mode begins")
def _():
    equal(owner.receive(), None)


@check("srvr, stat and mntr say that the server is read-only")
def _():
    for name in ("srvr", "stat"):
        lines = word(alone, name).splitlines()
        equal(lines[1], "READ-ONLY mode; serving only read-only clients", name)
        assert "Mode: read-only" in lines, lines
    assert "zk_server_state\tread-only\n" in word(alone, "mntr")


@check("who has not asked for it is closed without a byte")
def _():
    equal(Connection(alone).open(read_only=False), None, "asked for the contrary:")
    equal(Connection(alone).open(read_only=None), None, "an old client:")
    equal(Connection(alone).open(zxid=1 << 60), None, "has seen more than this server:")


@check("a session is opened without the ensemble")
def _():
    connection = Connection(alone)
    timeout, session, password, read_only = connection.open(timeout=1)
    equal((timeout, read_only), (1000, True))
    assert session != 0 and password != bytes(16)


@check("a session is resumed with its password on another connection, which ends the first one")
def _():
    first, second = Connection(alone), Connection(alone)
    timeout, session, password, read_only = first.open()
    equal(second.open(session=session, password=password, timeout=20000), (20000, session, password, True))
    equal(first.receive(), None)
    equal(second.ask(PING, xid=-2)[:3:2], (-2, 0))


@check("a wrong password or an unknown session is answered as expired")
def _():
    first = Connection(alone)
    _, session, _, _ = first.open()
    for wrong in (Connection(alone), Connection(alone)):
        equal(wrong.open(session=session, password=b"x" * 16), EXPIRED)
        equal(wrong.receive(), None)
        session += 1000
    if not IS_APACHE:
        # There, whoever knows a session's number throws its owner off.
        equal(first.ask(PING, xid=-2)[2], 0)


@check("a session of the ensemble is not resumed, whatever the password")
def _():
    equal(Connection(alone).open(session=of_ensemble[1], password=of_ensemble[2]), None)
    equal(Connection(alone).open(session=of_ensemble[1], password=b"x" * 16), None)


@check("reads, watches, authentication and pings are answered from what the server has")
def _():
    connection = Connection(alone)
    connection.open(zxid=last_zxid)
    # As resumed sessions and the like are counted or not, the zxid may be higher.
    xid, zxid, error, data = connection.ask(GET_DATA, text("/read-only") + b"\1")
    assert (xid, error, data[:5]) == (1, 0, b"\0\0\0\1x") and zxid >= last_zxid, (xid, zxid, error, data)
    equal(connection.ask(EXISTS, text("/none") + b"\1")[1:], (zxid, NO_NODE, b""))
    equal(connection.ask(PING, xid=-2), (-2, zxid, 0, b""))
    equal(connection.ask(AUTH, struct.pack(">i", 0) + text("digest") + text("user:word"), xid=-4), (-4, 0, 0, b""))
    equal(connection.ask(SET_WATCHES, struct.pack(">q", zxid) + bytes(12), xid=-8), (-8, zxid, 0, b""))
    equal(connection.ask(ADD_WATCH, text("/read-only") + bytes(4)), (1, zxid, 0, bytes(4)))
    one_read = struct.pack(">i?i", GET_DATA, False, -1) + text("/read-only") + b"\0" + struct.pack(">i?i", -1, True, -1)
    equal(connection.ask(MULTI_READ, one_read)[1:3], (zxid, 0))
    equal(connection.ask(WHO_AM_I)[1:3], (zxid, 0))


@check("writes and sync are refused, unread")
def _():
    connection = Connection(alone)
    connection.open()
    zxid = connection.ask(PING, xid=-2)[1]
    refused = [CREATE, CREATE2, CREATE_TTL, CREATE_CONTAINER, DELETE, DELETE_CONTAINER, SET_DATA, SET_ACL, MULTI, RECONFIG]
    for operation in [*refused, SYNC]:
        equal(connection.ask(operation, xid=7), (7, zxid, NOT_READ_ONLY, b""), f"operation {operation}:")
    equal(connection.ask(SYNC, text("/"), xid=8), (8, zxid, NOT_READ_ONLY, b""), "sync:")
    equal(connection.ask(CREATE, create_body("/x"), xid=9), (9, zxid, NOT_READ_ONLY, b""), "create:")
    equal(connection.ask(CHECK, xid=10), (10, -1, UNIMPLEMENTED, b""), "check alone:")
    equal(connection.receive(), None)


@check("replies leave in the order of their requests")
def _():
    connection = Connection(alone)
    connection.open()
    asked = [(GET_DATA, text("/read-only") + b"\0"), (EXISTS, text("/none") + b"\0")] * 20
    for xid, (operation, body) in enumerate(asked):
        connection.send(struct.pack(">ii", xid, operation) + body)
    xids = [struct.unpack(">i", connection.receive()[:4])[0] for _ in asked]
    equal(xids, list(range(len(asked))))


@check("a session is closed by its client, and gone then")
def _():
    connection = Connection(alone)
    _, session, password, _ = connection.open()
    zxid = connection.ask(PING, xid=-2)[1]
    equal(connection.ask(CLOSE, xid=5), (5, zxid, 0, b""))
    equal(connection.receive(), None)
    equal(Connection(alone).open(session=session, password=password), EXPIRED)


@check("a silent session ends after its timeout, and not before")
def _():
    connection = Connection(alone)
    began = time.monotonic()
    timeout, session, password, _ = connection.open(timeout=2000)
    equal(connection.receive(), None)
    lasted = time.monotonic() - began
    assert lasted >= timeout / 1000, f"after {lasted} s"
    equal(Connection(alone).open(session=session, password=password), EXPIRED)


@check("when there is a leader again, read-only clients are sent away and get sessions of the ensemble")
def _():
    connection = Connection(alone)
    _, session, password, _ = connection.open(timeout=60000)
    for member in "23":
        tell("start", member)
    equal(connection.receive(), None)
    await_word(alone, "isro", "rw")
    tell("await")
    equal(Connection(alone).open(session=session, password=password), (*EXPIRED[:3], False))
    again = Connection(alone)
    equal(again.open()[3], False)
    equal(again.ask(CREATE, create_body("/read-only-no-more"))[2], 0)
    assert "READ-ONLY" not in word(alone, "srvr")


@check("the ensemble's session and its ephemeral have lived on")
def _():
    connection = Connection(alone)
    equal(connection.open(read_only=True, session=of_ensemble[1], password=of_ensemble[2], timeout=60000)[1], of_ensemble[1])
    equal(connection.ask(EXISTS, text("/read-only-ephemeral") + b"\0")[2], 0)


raise SystemExit(failed)
