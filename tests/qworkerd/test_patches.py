"""An application that has patched the standard library is refused before anything is forked."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.lifecycle.cluster import Cluster
from tests.lifecycle.conftest import cluster as cluster_fixture
from tests.qworkerd.conftest import Command
from tests.qworkerd.test_check import report

cluster = cluster_fixture

#: What gevent.monkey.patch_time() and eventlet.monkey_patch(time=True) leave.
PATCH = "import time\n\ndef sleep(seconds=0): ...\n\nsleep.__module__ = {module!r}\ntime.sleep = sleep\n"


@pytest.mark.parametrize("module", ["gevent.hub", "eventlet.greenthread"])
def test_check_names_the_library_and_the_way_out(
    command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(time, "sleep", time.sleep)
    shop.write_text(shop.read_text() + PATCH.format(module=module))
    (problem,) = report(command, "--app", "shop:app")["problems"]
    assert module.partition(".")[0] in problem
    assert "time.sleep" in problem
    assert "--processes" in problem


def test_a_node_does_not_start(cluster: Cluster, tmp_path: Path) -> None:
    module = tmp_path / "patched_shop.py"
    module.write_text("from qworker import App\n\napp = App()\n\n" + PATCH.format(module="gevent.hub"))
    node = cluster.start("--app", "patched_shop:app", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert node.wait() == 78
    assert "gevent" in node.events("configuration.invalid")[0]["error"]
    assert node.events("child.spawned") == []
