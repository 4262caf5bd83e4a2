"""kazoo, while every member of its ensemble is restarted: sessions and ephemerals stay, writes go on."""

import os
import threading
import time
import uuid

from ensemble import tell
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import ConnectionLoss, OperationTimeoutError, SessionExpiredError
from kazoo.handlers.threading import KazooTimeoutError

PATIENCE_S = 60


class Writer(threading.Thread):
    """One session that writes one znode again and again."""

    def __init__(self, hosts):
        super().__init__(daemon=True)
        self.states, self.acknowledged, self.unknown, self.problem = [], 0, 0, None
        self.stopping = threading.Event()
        self.path = "/kazoo-rolling-" + uuid.uuid4().hex
        self.client = KazooClient(hosts=hosts, timeout=20)
        self.client.start(timeout=PATIENCE_S)
        self.client.add_listener(self.states.append)
        self.session = self.client.client_id[0]
        self.client.create(self.path)
        self.client.create(self.path + "/ephemeral", ephemeral=True)

    def run(self):
        while not self.stopping.is_set():
            try:
                self.client.set(self.path, str(self.acknowledged).encode())
                self.acknowledged += 1
            except (ConnectionLoss, OperationTimeoutError, KazooTimeoutError):
                # What a reconnect costs: this write's outcome is unknown.
                self.unknown += 1
                time.sleep(0.02)
            except SessionExpiredError as error:
                self.problem = f"the session was lost: {error!r}"
                return
            except Exception as error:  # noqa: BLE001, whatever it is: it is more than a reconnect
                self.problem = f"more than a reconnect: {error!r}"
                return

    def await_progress(self):
        before, deadline = self.acknowledged, time.monotonic() + PATIENCE_S
        while self.acknowledged < before + 20:
            assert self.problem is None, self.problem
            assert time.monotonic() < deadline, "no write was acknowledged for a minute"
            time.sleep(0.05)

    def check(self):
        self.stopping.set()
        self.join()
        assert self.problem is None, self.problem
        assert KazooState.LOST not in self.states, f"the session was lost: {self.states}"
        version = self.client.retry(self.client.get, self.path)[1].version
        most = self.acknowledged + self.unknown
        assert self.acknowledged <= version <= most, f"version {version}, {self.acknowledged} to {most} writes"
        stat = self.client.retry(self.client.exists, self.path + "/ephemeral")
        assert stat is not None and stat.ephemeralOwner == self.session, f"the ephemeral is gone: {stat}"
        self.client.stop()


def main():
    writers = [Writer(tell("addresses")) for _ in range(3)]
    for writer in writers:
        writer.start()
    for member in "123":
        tell("stop", member)
        for writer in writers:
            writer.await_progress()
        tell("start", member)
        tell("await")
    for writer in writers:
        writer.check()
    unknown = sum(writer.unknown for writer in writers)
    return f"{sum(writer.acknowledged for writer in writers)} writes, {unknown} of unknown outcome at a reconnect"


NAME = "kazoo: every member is restarted under load, no session is lost"
try:
    print(f"ok {NAME} ({main()})")
except Exception as error:  # noqa: BLE001, a failed check
    print(f"FAIL {NAME}: {error!r}")
    raise SystemExit(1) from error
