"""PostgreSQL servers, each kept by a Patroni of its own: names and what can be done to them. They end with this process."""

import atexit
import contextlib
import json
import os
import shlex
import socket
import subprocess
import urllib.error
import urllib.request

import psutil
import psycopg2
from ensemble import tell

# Patroni's name for all of them together: their znodes lie below /service/menagerie.
SCOPE = "menagerie"

_FOLDER = os.environ["DATABASES"]
_AS_OWNER = shlex.split(os.environ["AS_OWNER"])
_PROGRAMS = os.environ["PROGRAMS"]
_PATIENCE_S = 120


def free_ports(count):
    """Free ones, each once."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Member:
    """One PostgreSQL server with its Patroni."""

    def __init__(self, name):
        self.name = name
        self.port, self.rest_port = free_ports(2)
        self.data = f"{_FOLDER}/{name}"
        self.settings = f"{_FOLDER}/{name}.yml"
        self.process = None
        # JSON is YAML.
        with open(self.settings, "w", encoding="utf-8") as file:
            json.dump(self._settings(), file, indent=2)
        atexit.register(self.kill)

    def _settings(self):
        here = "127.0.0.1"
        trusted = [f"host all all {here}/32 trust", f"host replication all {here}/32 trust"]
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{here}:{self.rest_port}", "connect_address": f"{here}:{self.rest_port}"},
            "zookeeper": {"hosts": tell("addresses").split(","), "auth_data": {"digest": "patroni:secret"}},
            "bootstrap": {
                "dcs": {
                    "ttl": 30,
                    "loop_wait": 5,
                    "retry_timeout": 7,
                    "failsafe_mode": True,
                    # What is acknowledged is on both, so that none is lost with the leader.
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": ["data-checksums", {"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}],
                "pg_hba": trusted,
            },
            "postgresql": {
                "listen": f"{here}:{self.port}",
                "connect_address": f"{here}:{self.port}",
                "data_dir": self.data,
                "bin_dir": os.environ["POSTGRESQL"],
                "pgpass": f"{_FOLDER}/{self.name}.pgpass",
                "pg_hba": trusted,
                "authentication": {
                    "superuser": {"username": "postgres", "password": "secret"},
                    "replication": {"username": "replicator", "password": "secret"},
                    "rewind": {"username": "rewinder", "password": "secret"},
                },
                "parameters": {"unix_socket_directories": _FOLDER, "shared_buffers": "16MB", "max_connections": 30},
            },
        }

    def start(self):
        """Starts Patroni, which starts PostgreSQL."""
        with open(f"{_FOLDER}/{self.name}.log", "ab") as log:
            command = [*_AS_OWNER, f"{_PROGRAMS}/patroni", self.settings]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=_FOLDER)

    def kill(self):
        """SIGKILL to Patroni and PostgreSQL, as when their machine loses its power. What is not running stays so."""
        for process in filter(None, [self._patroni(), self._postmaster()]):
            try:
                family = [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        if self.process is not None:
            self.process.wait()

    def _patroni(self):
        return psutil.Process(self.process.pid) if self.process is not None and self.process.poll() is None else None

    def _postmaster(self):
        try:
            with open(f"{self.data}/postmaster.pid", encoding="utf-8") as file:
                process = psutil.Process(int(file.readline()))
            return process if "postgres" in process.name() else None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None

    def stop(self):
        """SIGTERM: Patroni stops PostgreSQL, closes its session and ends."""
        self.process.terminate()
        self.process.wait(_PATIENCE_S)

    def ask(self, path="/patroni", method="GET", body=None):
        """What Patroni's REST API answers, whatever status it answers with."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.rest_port}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def query(self, statement, *values):
        """The rows that PostgreSQL answers with. A connection, and a transaction, of its own."""
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", connect_timeout=30)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def control(self, *words):
        """Runs patronictl."""
        command = [f"{_PROGRAMS}/patronictl", "-c", self.settings, *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_PATIENCE_S)
        assert done.returncode == 0, f"patronictl {' '.join(words)}: {done.stdout}"
        return done.stdout
