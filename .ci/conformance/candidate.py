"""qworker's backend as `suites.py` sees it: the jobs run on real nodes, which end when nothing is left to do.

A process that is forked when the test databases exist forks a node for each drain; so a node costs half a second, and
not the start of Python and Django as well. What the node logs for Django comes back through a file.
"""

import atexit
import logging
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
from logging.handlers import SocketHandler
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from qworkerd.embedded import EmbeddedPostgres

BACKEND = "qworker.contrib.django.Backend"
#: The app, whose migrations make the tables in the databases of tests.
APPS = ["qworker.contrib.django"]
LOGGER = logging.getLogger("django.tasks")
LENGTH = struct.Struct(">L")
#: How long a node may take until its queues are empty (seconds).
PATIENCE = 60.0

server = EmbeddedPostgres({"max_connections": 100}).start()
folder = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, folder, ignore_errors=True)
atexit.register(server.close)

_parts = conninfo_to_dict(server.dsn)
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": _parts["user"],
        "PASSWORD": _parts["password"],
        "HOST": _parts["host"],
        "PORT": str(_parts["port"]),
        "TEST": {"NAME": "test_qworker"},
    }
}


class Helper:
    """The process that forks nodes, seen from the tests."""

    channel = None
    #: A connection that deletes the jobs between two tests.
    cleaner = None

    def start(self):
        """Fork it; the test databases exist."""
        from django.db import connections

        self.channel, theirs = socket.socketpair()
        if os.fork():
            theirs.close()
            return
        self.channel.close()
        connections["default"].connection = None  # it is the parent's
        try:
            self.serve(theirs)
        finally:
            os._exit(0)

    def serve(self, channel):
        """Fork a node for each request, and answer with its exit code."""
        while size := channel.recv(LENGTH.size):
            request = pickle.loads(channel.recv(*LENGTH.unpack(size), socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                channel.close()
                try:
                    os._exit(node(**request))
                finally:
                    os._exit(70)
            channel.sendall(LENGTH.pack(wait(pid, PATIENCE) & 0xFF))

    def node(self, **request):
        """Run a node; return its exit code."""
        data = pickle.dumps(request)
        self.channel.sendall(LENGTH.pack(len(data)) + data)
        (code,) = LENGTH.unpack(self.channel.recv(LENGTH.size, socket.MSG_WAITALL))
        return code


def wait(pid, timeout):
    """Wait for the end of a node, and kill it if it takes too long; return its exit code."""
    descriptor = os.pidfd_open(pid)
    if not select.select([descriptor], [], [], timeout)[0]:
        os.kill(pid, signal.SIGKILL)  # its children die with it
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


helper = Helper()


class Relay(SocketHandler):
    """Writes log records to a file, from several processes."""

    def __init__(self, file):
        super().__init__("", 0)
        self.file = file

    def emit(self, record):
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, self.makePickle(record))
        os.close(descriptor)


def node(tasks, alias, queues):
    """Be a node for one backend until its queues are empty; return the exit code."""
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from django.conf import settings
    from django.core.signals import setting_changed

    settings.TASKS = tasks
    setting_changed.send(sender=None, setting="TASKS", value=tasks, enter=True)
    LOGGER.handlers[:] = [Relay(folder / "records")]
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    from qworker.contrib.django.node import load
    from qworkerd import log
    from qworkerd.config.settings import Settings
    from qworkerd.run import serve

    log.configure("json", "info")
    app = load(alias)
    names = ",".join(app.configuration.queue_prefix + queue for queue in queues)
    found, _ = Settings.load({"queues": names, "processes": "1", "burst": True})
    return serve(app, found)


def prepare():
    """Start the helper; the tables are there."""
    from qworker.contrib.django.database import dsn

    helper.start()
    helper.cleaner = psycopg.connect(dsn("default"), autocommit=True)


def finish():
    """End the helper, and leave the database, so that it can be dropped."""
    helper.channel.close()
    helper.cleaner.close()


def drain(queues=None, backend="default"):
    """Run what is due; log records of the node arrive here."""
    from django.conf import settings

    if queues is None:
        app = application(backend)
        known = (queue.name for queue in app.admin.queues())
        prefix = app.configuration.queue_prefix
        queues = {"default", *(name.removeprefix(prefix) for name in known if name.startswith(prefix))}
    records = folder / "records"
    records.unlink(missing_ok=True)
    tasks = {alias: {name: _plain(value) for name, value in params.items()} for alias, params in settings.TASKS.items()}
    if code := helper.node(tasks=tasks, alias=backend, queues=sorted(queues)):
        sys.exit(f"the node ended with {code}:\n{(folder / 'output').read_text()}")
    data = records.read_bytes() if records.exists() else b""
    while data:
        (size,) = LENGTH.unpack_from(data)
        LOGGER.handle(logging.makeLogRecord(pickle.loads(data[LENGTH.size :][:size])))
        data = data[LENGTH.size + size :]


def clear():
    """Forget every job. There are few: TRUNCATE of all the partitions takes fifty times longer than DELETE."""
    helper.cleaner.execute("DELETE FROM qworker.job; DELETE FROM qworker.unique_key; DELETE FROM qworker.job_history")


def ids():
    """Return the ids of all jobs, oldest first."""
    return [str(job.id) for job in reversed(application().admin.find(limit=1000))]


def application(alias="default"):
    """Return the application of a backend."""
    from qworker.contrib.django.application import application

    return application(alias)


def _plain(value):
    return dict(value) if isinstance(value, dict) else value
