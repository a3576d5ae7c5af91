"""The alerts fire when they should, and not beside it: Prometheus evaluates them over samples."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).parents[2] / "docs" / "monitoring"
MINUTES = 12

#: A sample a minute of what goes wrong, and of what looks similar.
WRONG = {
    "qworker_build_info{instance='a'}": "1x30",
    "qworker_queue_workers{instance='a',queue='mail'}": "0x30",
    "qworker_queue_jobs{instance='a',queue='mail',state='available'}": "5x30",
    "qworker_queue_oldest_seconds{instance='a',queue='mail'}": "700x30",
    "qworker_queue_oldest_seconds{instance='b',queue='mail'}": "690x30",
    "qworker_queue_paused{instance='a',queue='mail'}": "0x30",
    "qworker_jobs_total{instance='a',queue='mail',task='send',outcome='failed'}": "0+20x30",
    "qworker_jobs_total{instance='a',queue='mail',task='send',outcome='completed'}": "0+80x30",
    "qworker_worker_deaths_total{instance='a',cause='oom'}": "0 0 0 1x30",
    "qworker_refused_writes_total{instance='a'}": "0+1x30",
    "qworker_maintenance_errors_total{instance='a',action='fold'}": "0+1x30",
    "qworker_horizon_seconds{instance='a'}": "601x30",
    "qworker_schedule_late_seconds{instance='a',schedule='nightly'}": "130x30",
    "qworker_doctor_findings{instance='a',check='unserved-queue',severity='stops'}": "1x30",
    "qworker_database_up{instance='a'}": "0x30",
    "qworker_lease_remaining_seconds{instance='a'}": "4x30",
    "qworker_nodes_lost_total{instance='a'}": "0 0 0 0 0 0 1x30",
}
FINE = {
    "qworker_build_info{instance='a'}": "1x30",
    # An empty queue that nobody serves, and one that another node serves.
    "qworker_queue_workers{instance='a',queue='mail'}": "0x30",
    "qworker_queue_jobs{instance='a',queue='mail',state='available'}": "0x30",
    "qworker_queue_jobs{instance='a',queue='mail',state='failed'}": "7x30",
    "qworker_queue_workers{instance='a',queue='sms'}": "2x30",
    "qworker_queue_jobs{instance='a',queue='sms',state='available'}": "5x30",
    "qworker_queue_oldest_seconds{instance='a',queue='paused'}": "700x30",
    "qworker_queue_paused{instance='a',queue='paused'}": "1x30",
    # Few of many, and all of few.
    "qworker_jobs_total{instance='a',queue='sms',task='send',outcome='failed'}": "0+1x30",
    "qworker_jobs_total{instance='a',queue='sms',task='send',outcome='completed'}": "0+80x30",
    "qworker_jobs_total{instance='a',queue='sms',task='rare',outcome='failed'}": "0+1x30",
    # A job's own timeout, and a handler that has left the process.
    "qworker_worker_deaths_total{instance='a',cause='timeout'}": "0 0 0 1x30",
    "qworker_worker_deaths_total{instance='a',cause='exit'}": "0 0 0 1x30",
    "qworker_refused_writes_total{instance='a'}": "3x30",
    "qworker_maintenance_errors_total{instance='a',action='fold'}": "0 1x30",
    "qworker_horizon_seconds{instance='a'}": "20x30",
    "qworker_schedule_late_seconds{instance='a',schedule='nightly'}": "0x30",
    "qworker_doctor_findings{instance='a',check='unused-index',severity='hint'}": "1x30",
    "qworker_database_up{instance='a'}": "1x30",
    "qworker_lease_remaining_seconds{instance='a'}": "28x30",
    "qworker_nodes_lost_total{instance='a'}": "1x30",
}
ALERTS = {rule["alert"] for rule in yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"][0]["rules"]}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    ("samples", "firing"), [(WRONG, ALERTS - {"QworkerNoNode"}), (FINE, set()), ({}, {"QworkerNoNode"})],
    ids=["wrong", "fine", "nothing"],
)  # fmt: skip
def test_alerts_fire_once_each_and_only_then(samples: dict[str, str], firing: set[str], tmp_path: Path) -> None:
    expected: list[dict[str, Any]] = [
        {"labels": f"{{alertname={json.dumps(name)}}}", "value": 1} for name in sorted(firing)
    ]
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    test = {
        "interval": "1m",
        "input_series": [{"series": series.replace("'", '"'), "values": text} for series, text in samples.items()],
        "promql_expr_test": [{"expr": query, "eval_time": f"{MINUTES}m", "exp_samples": expected}],
    }
    rules = {"rule_files": [str(DOCS / "alerts.yaml")], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
