"""An application of whose node the exporter waits less than a minute for a scrape."""

from qworkerd.exporter import server
from tests.lifecycle.application import app

server.HANGING_AFTER = 2.0

__all__ = ["app"]
