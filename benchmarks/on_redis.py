"""The peers that keep their jobs in Redis, and the server they need."""

import socket
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from contender import TIME_LIMIT, Contender


class Redis:
    """A connection to Redis, for commands that are answered by a number or a word."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port or 6379), timeout=10)
        self.replies = self.socket.makefile("rb")

    def call(self, *words: str) -> int | str:
        # https://redis.io/docs/latest/develop/reference/protocol-spec/
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        reply = self.replies.readline().decode().strip()
        if reply.startswith(":"):
            return int(reply[1:])
        if reply.startswith("+"):
            return reply[1:]
        raise OSError(f"redis answered {reply!r} to {words[0]}")


class RedisServer:
    """A Redis on loopback that lives in a folder, with the built-in configuration: snapshots, no append-only file."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{port}/0"
        self.command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", str(folder)]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            try:
                Redis(self.url).call("PING")
            except OSError:
                if time.monotonic() > until:
                    self.__exit__()
                    raise
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


class OnRedis(Contender):
    broker = "redis"
    #: Commands that count the jobs left in each place, in the order in which a job passes them: so none slips by.
    places: ClassVar[list[tuple[str, str]]]
    #: A command that counts those that failed for good, where they are kept.
    failed: ClassVar[tuple[str, str] | None] = None

    def __init__(self, name: str, python: str, url: str) -> None:
        super().__init__(name, python, url)
        self.url = url

    @cached_property
    def redis(self) -> Redis:
        """The connection, made when it is needed: peers are built before the server runs."""
        return Redis(self.url)

    def install(self) -> None:
        pass

    def clear(self) -> None:
        self.redis.call("FLUSHDB")
        self.enqueued = 0

    def begun(self) -> bool:
        return self.count(*self.places[0]) < self.enqueued

    def left(self) -> bool:
        return any(self.count(*place) for place in self.places)

    def acknowledged(self) -> int:
        others = [*self.places, *([self.failed] if self.failed else [])]
        return self.enqueued - sum(self.count(*place) for place in others)

    def count(self, *words: str) -> int:
        return int(self.redis.call(*words))


class Celery(OnRedis):
    """Celery, prefork. By default a message is acknowledged when a process accepts it: before the task has run.

    Between Redis and the worker's note of it, for less than 1 ms, a message is in neither place.
    """

    module = "celery_noops"
    places: ClassVar = [("LLEN", "celery"), ("HLEN", "unacked")]

    def __init__(self, python: str, url: str) -> None:
        super().__init__("Celery 5.7, prefork", python, url)

    def commands(self, processes: int) -> list[list[str]]:
        options = f"--pool prefork -c {processes} --time-limit {TIME_LIMIT} --loglevel WARNING"
        return [self.command("celery", f"-A {self.module} worker {options}")]


class Rq(OnRedis):
    """RQ, a pool of its default workers, which fork for each job."""

    module = "rq_noops"
    places: ClassVar = [
        ("LLEN", "rq:queue:default"),
        ("LLEN", "rq:queue:default:intermediate"),
        ("ZCARD", "rq:wip:default"),
    ]
    # What has finished is forgotten after 500 s by default, so it cannot be counted after a longer run.
    failed = ("ZCARD", "rq:failed:default")

    def __init__(self, python: str, url: str) -> None:
        super().__init__("RQ 3.0", python, url)

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("rq", f"worker-pool default -n {processes} -u {self.url} --logging-level WARNING")]


class Dramatiq(OnRedis):
    """Dramatiq, a thread a process. Its worker prefetches; a message is deleted when it is acknowledged."""

    module = "dramatiq_noops"
    places: ClassVar = [("HLEN", "dramatiq:default.msgs"), ("HLEN", "dramatiq:default.DQ.msgs")]
    failed = ("HLEN", "dramatiq:default.XQ.msgs")

    def __init__(self, python: str, url: str) -> None:
        super().__init__("Dramatiq 2.2, a thread a process", python, url)

    def begun(self) -> bool:
        return self.count("LLEN", "dramatiq:default") < self.enqueued

    def commands(self, processes: int) -> list[list[str]]:
        return [self.command("dramatiq", f"{self.module} --processes {processes} --threads 1")]
