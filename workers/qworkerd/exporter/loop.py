"""The exporter process: an HTTP server in threads, and a loop that shows that it lives."""

import os
import signal
from time import monotonic

from qworkerd import log
from qworkerd.exporter.server import Server
from qworkerd.process import exits
from qworkerd.shared.context import NodeContext
from qworkerd.shared.slots import Phase, Slot

#: Interval of the loop (seconds).
TICK = 1.0


def main(node: NodeContext, slot: Slot) -> int:
    """Serve until SIGTERM; return the exit code."""
    log.bind_process(role="exporter")
    settings = node.settings
    signal.signal(signal.SIGTERM, lambda *_: os._exit(exits.OK))
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(exits.OK))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        server = Server(node, settings.metrics_host, settings.metrics_port or 0)
    except OSError as error:
        log.get().error(
            "exporter.bind_failed", host=settings.metrics_host, port=settings.metrics_port, error=str(error),
            hint="jobs run nevertheless; it is tried again",
        )  # fmt: skip
        return exits.SOFTWARE
    log.get().info("exporter.ready", host=settings.metrics_host, port=server.server_port)
    server.timeout, parent = TICK, os.getppid()  # which is process 1 in a container
    while os.getppid() == parent:
        slot.enter(Phase.IDLE, monotonic() + settings.stall_timeout)
        server.handle_request()
        server.disconnect_overdue()
        if server.hangs:
            log.get().error("exporter.scrape_hangs", hint="the process is replaced; jobs run nevertheless")
            return exits.SOFTWARE
    return exits.OK
