"""The same application, whose connections refuse the statement for the origins of jobs."""

from tests.contrib.tracing.application import app

assert app.origins is not None
app.origins._sql = {**app.origins._sql, "read": "SELECT 1 / 0"}

__all__ = ["app"]
