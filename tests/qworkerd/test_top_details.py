"""What `qworker top` shows of one row that was chosen."""

from datetime import UTC, datetime
from typing import cast

from qworker.admin import Admin
from qworker.status import NodeStatus
from qworkerd.top import details

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_what_a_node_of_another_version_does_not_report_is_left_open() -> None:
    node = NodeStatus(
        id=1, name="web1:7", version="0.9", queues=("default",), worker_count=1, idle=False, started_at=NOW,
        heartbeat_at=NOW, heartbeat_age=1.0, lease_seconds=30.0, state={"workers": [{"worker": 1}, {}, 7]},
    )  # fmt: skip
    _, facts = details.read(cast("Admin", None), node)
    values = [value.split() for _, value, _ in facts]
    first = next(number for number, value in enumerate(values) if value[:1] == ["WORKER"]) + 1
    assert values[first:] == [["1", "-", "-", "-", "-", "-"], ["-"] * 6]
