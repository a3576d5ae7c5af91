"""Under fire: whatever strikes, every committed job has one end, none runs twice at a time, and effects are exact.

$CHAOS_SECONDS says for how long (the short form if not given), $CHAOS_SEED what happens; a failure names its seed.
"""

import os
import secrets
from pathlib import Path
from random import Random

import pytest

from tests.chaos import evidence
from tests.chaos.effects import ask, await_dead_nodes, check, settle
from tests.chaos.evidence import kept
from tests.chaos.field import LEASE, pitch
from tests.chaos.producers import Producers
from tests.chaos.storm import Storm

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
LONG = "CHAOS_SECONDS" in os.environ
SEED = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1_000_000)))


def test_faults_find_what_they_aim_at(tmp_path: Path) -> None:
    with pitch(tmp_path, Random(1)) as field:
        for role in ("worker", "scheduler", "supervisor"):
            assert field.process(role) is not None


@pytest.mark.timeout(SECONDS + 180)
def test_nothing_is_lost_and_nothing_is_doubled_whatever_strikes(tmp_path: Path) -> None:
    random = Random(SEED)
    with pitch(tmp_path, random) as field:
        # Who waits for minutes wants to see something; otherwise pytest shows it with a failure.
        cluster, storm = field.cluster, Storm(field, tell=say if LONG else None)
        say(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}")
        say(f"a namespace: {field.namespace is not None}, a clock that moves: {field.server.movable}")
        with kept(tmp_path, storm.record, seed=SEED, seconds=SECONDS):
            try:
                with Producers(cluster.database.dsn, random):
                    storm.rage(SECONDS)
                    cluster.hang_up()
                settle(cluster)
                check(cluster)
                assert cluster.value("SELECT count(*) FROM ticked") > 0
                for task, state, jobs in cluster.query(
                    "SELECT task, state, count(*) FROM expected GROUP BY 1, 2 ORDER BY 1"
                ):
                    say(f"{jobs:6,} {task} {state}")
                say(f"{len(cluster.notes('start')):6,} handlers started, {len(storm.record)} faults")
            finally:
                if not LONG:
                    say("\n".join(storm.record))
            await_dead_nodes(cluster, len(field.nodes), LEASE + 5.0)
            for node in field.nodes:
                assert node.stop() == 0
            assert ask(cluster, "SELECT id FROM qworker.node") == []


def test_a_failed_run_leaves_its_error_seed_faults_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FOLDER", tmp_path / "evidence")
    run = tmp_path / "run"
    run.mkdir()
    (run / "log-1").write_text("what the node said\n")
    (run / "lock").touch()
    faults = ["1.00 SIGKILL to a worker"]

    def fail() -> None:
        with kept(run, faults, seed=7, seconds=30.0):
            faults.append("2.00 a deploy")
            raise AssertionError("a job was lost")

    with pytest.raises(AssertionError, match="a job was lost") as raised:
        fail()
    (folder,) = (tmp_path / "evidence").iterdir()
    assert raised.value.__notes__ == [f"error, faults and logs of the nodes: {folder}"]
    assert "a job was lost" in (folder / "error").read_text()
    assert (folder / "faults").read_text() == "1.00 SIGKILL to a worker\n2.00 a deploy\n"
    assert (folder / "repeat").read_text() == "CHAOS_SEED=7 CHAOS_SECONDS=30 python -m pytest -s tests/chaos\n"
    assert [path.name for path in (folder / "run").iterdir()] == ["log-1"]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
