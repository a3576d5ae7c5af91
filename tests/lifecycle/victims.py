"""Nodes that something happens to while they run a job, and the things that happen."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from qworker import Job
from tests.lifecycle.application import app
from tests.lifecycle.cluster import Cluster
from tests.lifecycle.hostile import Orders
from tests.lifecycle.node import Node
from tests.lifecycle.proxy import Proxy

#: The lease of the node that stays well, and of all others unless a fault says otherwise (seconds).
LEASE = 5.0
HOSTILE = "tests.lifecycle.hostile:app"


@dataclass(frozen=True)
class Fault:
    """What happens to a node."""

    strike: Callable[["Victim"], None]
    #: What ends it, if anything can.
    heal: Callable[["Victim"], None] | None = None
    lease: float = LEASE
    #: The task of the job that runs meanwhile: "lingers" runs for a minute the first time and for no time the second.
    task: str = "lingers"


class Victim:
    """A node, its way to the database, and its job."""

    def __init__(self, cluster: Cluster, name: str, fault: Fault, proxy: Proxy) -> None:
        self.cluster = cluster
        self.fault = fault
        self.proxy = proxy
        self.queue = name.replace(" ", "_")
        self.orders = Orders(cluster.folder / f"orders-{self.queue}")
        self.node: Node = cluster.start(
            "--processes", "1", "--lease-timeout", str(fault.lease), "--queues", f"{self.queue},{self.queue}_own",
            dsn=proxy.dsn, QWORKER_APP=HOSTILE, QWORKER_TEST_BOOT=str(self.orders.path),
        )  # fmt: skip
        #: When the fault struck (monotonic).
        self.struck_at = 0.0
        self._healed = False

    def occupy(self) -> None:
        """Have the node run its job."""
        task = app.get_task(self.fault.task).options(queue=self.queue)
        self.job: Job = task.enqueue() if self.fault.task == "lingers" else task.enqueue(str(self.end))
        #: Who runs it.
        self.worker = int(self.cluster.await_notes("start", job=self.job.id)[0]["pid"])

    def strike(self) -> None:
        """Let it happen."""
        self.struck_at = monotonic()
        self.fault.strike(self)

    def heal(self) -> None:
        """Put an end to it, once."""
        if self.fault.heal is not None and not self._healed:
            self._healed = True
            self.fault.heal(self)

    @property
    def end(self) -> Path:
        """The file that ends a job which waits for one."""
        return self.cluster.folder / f"end-{self.queue}"

    def finish(self, pid: object) -> None:
        """End the job in one of the processes that run it."""
        Path(f"{self.end}-{pid}").touch()

    @property
    def scheduler(self) -> int:
        """The newest scheduler's pid, also when it hangs before it has its name."""
        return self.node.spawned("scheduler")


def send(signum: signal.Signals, *pids: int) -> None:
    """Signal processes, in this order."""
    for pid in pids:
        os.kill(pid, signum)


def kill_scheduler(victim: Victim) -> None:
    """Kill it for good: its successor hangs at boot."""
    victim.orders.give("hang")
    send(signal.SIGKILL, victim.scheduler)


def let_scheduler_boot(victim: Victim) -> None:
    victim.orders.recall()
    send(signal.SIGKILL, victim.scheduler)


def delete_row(victim: Victim) -> None:
    """Declare the node dead, as another one would, but too early."""
    number = victim.node.await_event("node.registered")["node"]
    victim.cluster.query("DELETE FROM qworker.node WHERE id = %s", number)


def stop_all(victim: Victim) -> None:
    send(signal.SIGSTOP, *victim.node.members())


def continue_all(victim: Victim) -> None:
    for pid in victim.node.members():
        with suppress(ProcessLookupError):  # a supervisor that goes on kills at once what it has to
            send(signal.SIGCONT, pid)


def finish_first(victim: Victim) -> None:
    """Let the worker end its job before anybody can stop it."""
    victim.finish(victim.worker)
    send(signal.SIGCONT, victim.worker)
    victim.node.await_event("job.stale_write")
    continue_all(victim)


#: Others take the job over.
LOST = {
    "scheduler killed": Fault(kill_scheduler, let_scheduler_boot),
    "scheduler stopped": Fault(lambda v: send(signal.SIGSTOP, v.scheduler), continue_all),
    "scheduler of a longer lease stopped": Fault(
        lambda v: send(signal.SIGSTOP, v.scheduler), continue_all, lease=LEASE + 3
    ),
    "supervisor stopped": Fault(lambda v: send(signal.SIGSTOP, v.node.pid), continue_all),
    "supervisor killed": Fault(lambda v: send(signal.SIGKILL, v.node.pid)),
    # The supervisor first: what is left is orphaned, and nobody replaces it.
    "supervisor and scheduler killed": Fault(lambda v: send(signal.SIGKILL, v.node.pid, v.scheduler)),
    "database silent": Fault(lambda v: v.proxy.hold(), lambda v: v.proxy.flow()),
    "database unreachable": Fault(lambda v: v.proxy.refuse(), lambda v: v.proxy.flow()),
}
#: The same, but a process that stands still holds its lock: whether it runs is told by its pulse.
STOPPED = {
    "stopped": Fault(stop_all, continue_all, task="pulse"),
    "stopped until the job is done": Fault(stop_all, finish_first, task="pulse"),
}
#: Nobody may take the job.
DRAINED = {"drained": Fault(lambda v: v.node.signal(signal.SIGTERM), lambda v: v.end.touch(), task="hold")}
#: The node itself takes the job again.
DECLARED_DEAD = {"declared dead": Fault(delete_row)}
