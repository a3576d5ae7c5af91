"""What `--app` may name, and what is said when it cannot be used."""

from pathlib import Path

import pytest

from qworker import App
from qworker.errors import ConfigurationError
from qworkerd.config.loading import load_app

MODULES = {
    "good.py": "from qworker import App\napp = App()\nclass holder:\n    inner = App()\nnumber = 7\n",
    "empty.py": "",
    "raises.py": "import json\n\njson.loads('{')\n",
    "leaves.py": "import sys\nsys.exit('no')\n",
    "needs.py": "import surely_not_installed\n",
    "broken.py": "def f(:\n",
    "pack/__init__.py": "",
    "pack/jobs.py": "from qworker import App\napp = App()\n",
}


@pytest.fixture(autouse=True)
def modules(folder: Path) -> None:
    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("spec", ["good:app", "good:holder.inner", "pack.jobs:app"])
def test_an_app_is_found_in_the_current_directory(spec: str) -> None:
    assert isinstance(load_app(spec), App)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("good", "use package.module:attribute"),
        ("good:", "use package.module:attribute"),
        ("good.py:app", "no module named 'good.py'"),
        ("./good:app", "use package.module:attribute"),
        ("absent:app", "no module named 'absent' in "),
        ("pack.absent:app", "no module named 'pack.absent' in "),
        ("good:missing", "module good has no attribute 'missing'; it contains good:app"),
        ("empty:app", "module empty has no attribute 'app'"),
        ("good:number", "is a int, not a qworker.App; it contains good:app"),
        ("good:App", "is a class, not a qworker.App"),
        ("raises:app", "importing it raised JSONDecodeError: Expecting property name"),
        ("leaves:app", "importing it raised SystemExit: no"),
        ("needs:app", "importing it raised ModuleNotFoundError: No module named 'surely_not_installed'"),
        ("broken:app", "importing it raised SyntaxError"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line(spec: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_app(spec)
    message = str(caught.value)
    assert message.startswith(f"app {spec!r}")
    assert expected in message
    assert "\n" not in message


def test_the_line_of_the_application_that_raised_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"\({folder}/raises.py:3\)"):
        load_app("raises:app")
