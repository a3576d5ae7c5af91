"""The probes and the autoscaling that the documentation shows, run as they are written there."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qworkerd.embedded.ports import free_port
from tests.lifecycle.application import quick
from tests.lifecycle.cluster import SOONER, Cluster
from tests.lifecycle.node import Node
from tests.waiting import until

DOCS = Path(__file__).parents[2] / "docs"
#: The port that the examples name.
PORT = 9108
#: Fields of a probe in Kubernetes.
FIELDS = {"exec", "httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds"}
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


def examples(page: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return found


def probes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the probes of all manifests, by name."""
    for text in examples("operations.md", "yaml"):
        for name, probe in yaml.safe_load(text).items():
            assert probe.keys() <= FIELDS, name
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]
            yield name, probe


def healthcheck() -> str:
    """Return the command of Docker's HEALTHCHECK, which it runs by /bin/sh -c."""
    (text,) = examples("operations.md", "dockerfile")
    found = re.fullmatch(r"HEALTHCHECK( --(interval|timeout|start-period)=\d+s)+ CMD (.*)\n", text)
    assert found is not None
    return found[3]


def run(cluster: Cluster, *command: str, dsn: str | None = None) -> int:
    """Return the exit status of a command of a probe, in the environment of a container."""
    folder = cluster.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "qworker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qworkerd "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}", "QWORKER_DSN": dsn or cluster.database.dsn, "HOME": str(folder),
    }  # fmt: skip
    done = subprocess.run([*command], env=environment, cwd=folder, timeout=60, capture_output=True, check=False)
    return done.returncode


def status(path: str, port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def commands() -> dict[str, list[str]]:
    """Return the commands of the probes, by the probe's name."""
    found = {name: probe["exec"]["command"] for name, probe in probes() if "exec" in probe}
    return found | {"HEALTHCHECK": ["/bin/sh", "-c", healthcheck()]}


def test_commands_of_probes_tell_a_node_that_lives_from_one_that_does_not(cluster: Cluster) -> None:
    assert commands().keys() == {"livenessProbe", "readinessProbe", "HEALTHCHECK"}
    assert {run(cluster, *command) for command in commands().values()} == {1}, "no node yet"
    node = cluster.start(*SOONER).await_ready()
    assert {run(cluster, *command) for command in commands().values()} == {0}
    away = {name: run(cluster, *command, dsn=NOWHERE) for name, command in commands().items()}
    assert away == {"livenessProbe": 0, "readinessProbe": 75, "HEALTHCHECK": 0}, "nobody restarts a node that waits"
    assert node.stop() == 0
    assert {run(cluster, *command) for command in commands().values()} == {1}


def test_probes_over_http(cluster: Cluster) -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in probes() if "httpGet" in probe}
    assert {probe["httpGet"]["port"] for _, probe in probes() if "httpGet" in probe} == {PORT}
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    port = free_port()
    text = (DOCS / "operations.md").read_text()
    (options,) = re.findall(rf"`--metrics-port {PORT} (--metrics-host [\d.]+)`", text)
    node: Node = cluster.start("--metrics-port", str(port), *options.split(), *SOONER).await_ready()
    for path in paths.values():
        until(lambda: status(path, port) == 200, 30)  # noqa: B023
    assert node.stop() == 0
    assert [status(path, port) for path in paths.values()] == [0, 0]


def triggers() -> Iterator[dict[str, str]]:
    """Yield the triggers of KEDA, each with the fields that it needs."""
    needed = {
        "postgresql": {"connectionFromEnv", "query", "targetQueryValue", "activationTargetQueryValue"},
        "metrics-api": {"url", "format", "valueLocation", "targetValue", "authMode"},
    }
    for text in examples("monitoring.md", "yaml"):
        for trigger in yaml.safe_load(text).get("triggers", []):
            metadata = trigger["metadata"]
            assert metadata.keys() == needed[trigger["type"]]
            assert all(isinstance(value, str) for value in metadata.values()), "KEDA accepts strings only"
            yield metadata


def test_autoscaling_follows_what_waits(cluster: Cluster) -> None:
    (query,) = [metadata["query"] for metadata in triggers() if "query" in metadata]
    (location,) = [metadata["valueLocation"] for metadata in triggers() if "valueLocation" in metadata]

    def wanted() -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "qworkerd", "stats", "--json", "--queue", "mail"],
            env=os.environ | {"QWORKER_DSN": cluster.database.dsn, "QWORKER_APP": ""}, cwd=cluster.folder,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout)
        for key in location.split("."):
            found = found[key]
        return found

    assert (cluster.value(query), wanted()) == (0, 0), "no job, no node: KEDA starts from zero"
    quick.options(queue="mail").enqueue_many([()] * 120)
    assert cluster.value(query) == 120
    assert wanted() >= 1


@pytest.mark.parametrize(("page", "number"), [("monitoring.md", 3), ("operations.md", 2)])
def test_every_manifest_is_tested(page: str, number: int) -> None:
    """That of Prometheus is tested with promtool."""
    found = [yaml.safe_load(text) for text in examples(page, "yaml")]
    assert len(found) == number
    assert all(isinstance(document, dict) for document in found)
