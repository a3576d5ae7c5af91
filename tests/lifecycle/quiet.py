"""The application under test, with a scheduler that soon finds that nothing happens."""

import qworkerd.scheduler.activity
from tests.lifecycle.handlers import app

__all__ = ["app"]

vars(qworkerd.scheduler.activity)["QUIET_AFTER"] = 1.0
