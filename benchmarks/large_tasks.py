"""The application whose backlog is crowd.sql: its tasks do nothing."""

from typing import Any

from tasks import app


@app.task(name="bulk.import", timeout=30)
def bulk_import(**_: Any) -> None:
    pass


for number in range(200):
    app.task(name=f"app.task_{number}", timeout=30)(lambda **_: None)
