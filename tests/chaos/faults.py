"""What can happen to a cluster under fire. Each fault strikes at random, and heals by itself after a time."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from qworker import App, QworkerError
from tests.chaos.field import Field

Heal = Callable[[], object]

#: The farthest that the server's clock is moved, to either side (seconds).
HOURS = 5 * 3600.0


@dataclass(frozen=True)
class Fault:
    """Something that strikes `often` times as often as others, and heals after `lasts` seconds at the most.

    Of one kind only one is broken at a time.
    """

    name: str
    often: int
    lasts: float
    kind: str
    #: Does it, and returns what undoes it.
    strike: Callable[[Field], Heal | None]


def signalled(signum: signal.Signals, role: str, *, often: int) -> Fault:
    """A process gets a signal that it does not survive; systemd would replace a supervisor, and so does the storm."""

    def strike(field: Field) -> None:
        _signal(field.process(role), signum)

    name = f"{signum.name} to a {role}"
    return Fault(name, often, 0.0, name, strike)


def stopped(role: str, *, often: int, lasts: float) -> Fault:
    """A process stands still, maybe for longer than a lease: then its node gives up."""

    def strike(field: Field) -> Heal:
        pid = field.process(role)
        _signal(pid, signal.SIGSTOP)
        return lambda: _signal(pid, signal.SIGCONT)

    return Fault(f"a {role} stands still", often, lasts, f"{role} stands", strike)


def _signal(pid: int | None, signum: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def deploy(field: Field) -> None:
    """A node is told to stop while its successor starts."""
    old = field.replace(field.random.randrange(len(field.nodes)))
    if old.process.poll() is None:
        old.signal(signal.SIGTERM)


def end_sessions(field: Field) -> None:
    """An administrator ends all sessions, or one in three."""
    share = field.random.choice([1, 3])
    with suppress(psycopg.Error):
        field.cluster.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND pid %% %s = 0",
            share,
        )


def stop_server(field: Field) -> Heal:
    """The server is shut down, and comes back."""
    field.server.stop()
    return field.server.start


def crash_server(field: Field) -> Heal:
    """The server is killed, and recovers."""
    field.server.kill()
    return field.server.start


def move_clock(field: Field) -> None:
    """The server's clock jumps by hours, and stays there."""
    field.server.move(field.random.uniform(-HOURS, HOURS))


def cut(field: Field) -> Heal:
    """All connections of one node are reset, and new ones refused."""
    field.proxy.refuse()
    return field.proxy.flow


def silence(field: Field) -> Heal:
    """Nothing gets through to one node or from it for a while, and nobody says so."""
    field.proxy.hold()
    return field.proxy.flow


def forget(field: Field) -> None:
    """The connections that one node has are never answered again; new ones are."""
    field.proxy.forget()


def lag(field: Field) -> Heal:
    """Everything takes longer for one node."""
    field.proxy.lag(field.random.uniform(0.001, 0.02))
    return field.proxy.flow


def pause(field: Field) -> Heal:
    """An operator pauses the queue, and resumes it. Either may fail; the storm resumes it in the end."""

    def change(*, paused: bool) -> None:
        app = App(field.cluster.database.dsn)
        with suppress(psycopg.Error, QworkerError):
            app.queue("default").pause() if paused else app.queue("default").resume()
        app.close()

    change(paused=True)
    return lambda: change(paused=False)


def unplug(field: Field) -> Heal | None:
    """One node's packets are lost, both ways."""
    if field.namespace is None:
        return None
    field.namespace.unplug()
    return field.namespace.plug


FAULTS = [
    signalled(signal.SIGKILL, "worker", often=6),
    signalled(signal.SIGSEGV, "worker", often=3),
    signalled(signal.SIGKILL, "scheduler", often=3),
    signalled(signal.SIGKILL, "supervisor", often=2),
    stopped("worker", often=3, lasts=4.0),
    stopped("scheduler", often=2, lasts=7.0),
    stopped("supervisor", often=2, lasts=7.0),
    Fault("a deploy", 2, 0.0, "deploy", deploy),
    Fault("sessions are ended", 2, 0.0, "sessions", end_sessions),
    Fault("the server stops", 1, 2.0, "server", stop_server),
    Fault("the server crashes", 2, 1.0, "server", crash_server),
    Fault("the server's clock jumps", 2, 0.0, "clock", move_clock),
    Fault("the network is cut", 2, 5.0, "proxy", cut),
    Fault("the network is silent", 2, 7.0, "proxy", silence),
    Fault("connections are forgotten", 1, 0.0, "proxy", forget),
    Fault("the network is slow", 1, 5.0, "proxy", lag),
    Fault("the cable is out", 2, 7.0, "cable", unplug),
    Fault("the queue is paused", 2, 3.0, "pause", pause),
]
