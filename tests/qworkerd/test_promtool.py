"""The alerting rules and the metrics, as promtool of Prometheus sees them: each alert fires, and clears."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from qworker import App
from qworkerd.config.settings import Settings
from qworkerd.exporter.collector import Collector
from qworkerd.run import make_node
from qworkerd.shared.tally import Counter
from tests.qworkerd.test_exporter import leave

RULES = Path(__file__).parents[2] / "docs" / "monitoring" / "alerts.yaml"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


class Scenario(NamedTuple):
    """Series with one value a minute; the alerts when they fire, and that none is left at the end."""

    alert: str
    series: dict[str, str]
    fires: int
    #: The labels and the summary of each alert.
    alerts: list[tuple[dict[str, str], str]]
    clears: int


#: The labels of two nodes of a cluster, and of a node of another cluster, whose values must not be mixed.
A, B, OTHER = 'job="q",instance="a"', 'job="q",instance="b"', 'job="other",instance="c"'
CLUSTER, ON_A = {"job": "q", "schema": "qworker"}, {"job": "q", "instance": "a"}
S = 'schema="qworker"'

LOST = "A node was declared dead: it was killed, or does not reach the database. Others run its jobs again"

SCENARIOS = [
    Scenario(
        "QworkerNoNode", {f'qworker_build_info{{{A},version="1"}}': "1x5 _x20 1x10"}, 18,
        [({}, "Prometheus finds no node of qworker")], 30,
    ),
    Scenario(
        "QworkerNodeLost",
        {f"qworker_nodes_lost_total{{{A}}}": "0x5 1x30", f"qworker_nodes_lost_total{{{OTHER}}}": "3x40"}, 7,
        [({"job": "q"}, LOST)], 20,
    ),
    Scenario(
        "QworkerQueueUnserved",
        {
            f'qworker_queue_workers{{{A},{S},queue="mail"}}': "0x20 2x20",
            f'qworker_queue_workers{{{B},{S},queue="mail"}}': "0x20 2x20",
            f'qworker_queue_jobs{{{A},{S},queue="mail",state="available"}}': "3x40",
            f'qworker_queue_jobs{{{A},{S},queue="mail",state="scheduled"}}': "3x40",
            # Served, empty, and of other clusters.
            f'qworker_queue_workers{{{A},{S},queue="sms"}}': "0x40",
            f'qworker_queue_jobs{{{A},{S},queue="sms",state="available"}}': "0x40",
            f'qworker_queue_workers{{{OTHER},{S},queue="mail"}}': "2x40",
            f'qworker_queue_jobs{{{OTHER},{S},queue="mail",state="available"}}': "3x40",
            f'qworker_queue_workers{{{A},schema="second",queue="mail"}}': "0x40",
        },
        10, [(CLUSTER | {"queue": "mail"}, "Queue mail has jobs, and no live node serves it")], 22,
    ),
    Scenario(
        "QworkerQueueSlow",
        {
            f'qworker_queue_oldest_seconds{{{A},{S},queue="mail"}}': "900x40",
            f'qworker_queue_paused{{{A},{S},queue="mail"}}': "0x20 1x20",
            f'qworker_queue_oldest_seconds{{{A},{S},queue="sms"}}': "900x40",
            f'qworker_queue_paused{{{A},{S},queue="sms"}}': "1x40",
            f'qworker_queue_paused{{{OTHER},{S},queue="mail"}}': "1x40",
        },
        10, [(CLUSTER | {"queue": "mail"}, "The oldest job of queue mail has waited for 15m 0s")], 22,
    ),
    Scenario(
        "QworkerScheduleLate",
        {
            f'qworker_schedule_late_seconds{{{A},{S},schedule="daily"}}': "0x5 60+60x10 0x20",
            f'qworker_schedule_late_seconds{{{B},{S},schedule="daily"}}': "0x5 60+60x10 0x20",
            f'qworker_schedule_late_seconds{{{A},{S},schedule="hourly"}}': "1x40",
        },
        10, [(CLUSTER | {"schedule": "daily"}, "Schedule daily is 5m 0s late")], 20,
    ),
    Scenario(
        "QworkerJobsFail",
        {
            f'qworker_jobs_total{{{A},queue="mail",task="send",outcome="failed"}}': "0+10x15 150x40",
            f'qworker_jobs_total{{{B},queue="mail",task="send",outcome="completed"}}': "0+30x55",
            f'qworker_jobs_total{{{A},queue="mail",task="rare",outcome="failed"}}': "0+1x55",
            f'qworker_jobs_total{{{A},queue="mail",task="good",outcome="completed"}}': "0+99x55",
            f'qworker_jobs_total{{{A},queue="mail",task="good",outcome="failed"}}': "0+1x55",
        },
        15, [({"job": "q", "queue": "mail", "task": "send"}, "25% of the jobs of send in queue mail fail")], 40,
    ),
    Scenario(
        "QworkerWorkersDie",
        {
            f'qworker_worker_deaths_total{{{A},cause="oom"}}': "0x5 1x40",
            f'qworker_worker_deaths_total{{{A},cause="timeout"}}': "0+1x45",
        },
        8, [({"instance": "a", "cause": "oom"}, "Workers of a die: oom")], 25,
    ),
    Scenario(
        "QworkerWritesRefused", {f"qworker_refused_writes_total{{{A}}}": "0+1x25 25x40"}, 15,
        [(ON_A, "Writes of a are fenced off: it loses its jobs to other nodes")], 45,
    ),
    Scenario(
        "QworkerMaintenanceFails",
        {
            f'qworker_maintenance_errors_total{{{A},action="fold"}}': "0x5 1 2 3 4x40",
            f'qworker_maintenance_errors_total{{{A},action="depth"}}': "0x5 1x45",
        },
        10, [(ON_A | {"action": "fold"}, "fold fails on a: see maintenance.error in its log")], 35,
    ),
    Scenario(
        "QworkerDoctorFinds",
        {
            f'qworker_doctor_findings{{{A},{S},check="unserved-queue",severity="stops"}}': "2x10 _x30",
            f'qworker_doctor_findings{{{A},{S},check="jobs-retry",severity="hint"}}': "1x40",
        },
        8, [(CLUSTER | {"check": "unserved-queue", "severity": "stops"}, "unserved-queue: run qworker doctor")], 17,
    ),
    Scenario(
        "QworkerHorizonHeld",
        {f"qworker_horizon_seconds{{{A},{S}}}": "700x15 0x20", f"qworker_horizon_seconds{{{B},{S}}}": "660x15 0x20"},
        10, [(CLUSTER, "A transaction has kept dead rows for 11m 40s")], 17,
    ),
    Scenario(
        "QworkerDatabaseDown", {f"qworker_database_up{{{A}}}": "1x5 0x10 1x20", f"qworker_database_up{{{B}}}": "1x40"},
        8, [(ON_A, "a does not reach its database")], 17,
    ),
    Scenario(
        "QworkerLeaseShort", {f"qworker_lease_remaining_seconds{{{A}}}": "29x5 3x5 29x20"}, 7,
        [(ON_A, "a is about to stop its jobs, because it cannot renew its lease")], 12,
    ),
]  # fmt: skip


def promtool(*arguments: str, text: str | None = None) -> str:
    """Run promtool; return what it writes."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_of_a_scrape_is_valid(tmp_path: Path) -> None:
    """promtool also looks whether the file of the token is there."""
    page = (RULES.parents[1] / "monitoring.md").read_text()
    (config,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", page, re.DOTALL)
    (path,) = re.findall(r"credentials_file: (\S+)}", config)
    (tmp_path / "token").write_text("a-token")
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace(path, str(tmp_path / "token")))
    assert "SUCCESS: " in promtool("check", "config", str(file))


def test_the_rules_are_valid() -> None:
    assert "SUCCESS: " in promtool("check", "rules", str(RULES))


def test_each_rule_has_a_scenario() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [scenario.alert for scenario in SCENARIOS]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.alert for scenario in SCENARIOS])
def test_an_alert_fires_and_clears(scenario: Scenario, tmp_path: Path) -> None:
    alerts = [{"exp_labels": labels, "exp_annotations": {"summary": text}} for labels, text in scenario.alerts]
    document: dict[str, Any] = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in scenario.series.items()],
            "alert_rule_test": [
                {"eval_time": f"{scenario.fires}m", "alertname": scenario.alert, "exp_alerts": alerts},
                {"eval_time": f"{scenario.clears}m", "alertname": scenario.alert, "exp_alerts": []},
            ],
        }],
    }  # fmt: skip
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(document))
    promtool("test", "rules", str(file))


@pytest.mark.parametrize("labels", ["queue,task", "queue", "task"])
def test_a_scrape_has_no_fault(labels: str) -> None:
    """Names, units, types and help are as Prometheus recommends, whatever the tasks are called."""
    node = make_node(App(), Settings(processes=2, metrics_labels=labels))
    for task in (
        "shop.send",
        'quote" \\ back',
        "line\nbreak",
        "right\u202eleft",
        "nul\0",
        "comma,{brace}",
        "cr\r\u2028\x85",
        "é" * 200,
        "",
    ):
        series = node.tally.numbers["mail", task]
        node.tally.writer(1).succeed(series, [0.1], [2.0])
        node.tally.writer(1).attempt(series, Counter.OOM, 0.1, None)
    leave(node)
    node.counters.bind(0)
    for name in ("ran fold", "took fold", "warning claim.error", "error (other)"):
        node.counters.add(name)
    registry = CollectorRegistry()
    registry.register(Collector(node))
    text = generate_latest(registry).decode()
    assert promtool("check", "metrics", text=text).strip() == ""
