"""A virtual environment that is made anew, with this project installed as its users install it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {"qworker": ROOT / "queue", "qworkerd": ROOT / "workers"}
#: Variables of the tests' own environment; the constraints of `make test-floors` are those of the tests.
OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PIP_CONSTRAINT", "PYTEST_", "DJANGO_SETTINGS_MODULE", "FLASK_APP")


def build_wheel(tree: Path) -> Path:
    """Build a wheel from a copy of what git would ship: a build leaves folders beside its sources."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for source in SOURCES.values():
        shutil.copytree(source, tree / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    dist = str(tree / "dist")
    if uv := _uv():
        command = [uv, "build", "--quiet", "--wheel", "--out-dir", dist, str(tree)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", dist, str(tree)]
    subprocess.run(command, check=True)
    (built,) = (tree / "dist").glob("*.whl")
    return built


@cache
def _uv() -> str | None:
    """Return uv, which installs in a second what takes pip ten; None if it is missing, or reaches no index.

    It reads neither the configuration of pip nor the certificates of the system.
    """
    found = shutil.which("uv")
    if found is None:
        return None
    ask = [found, "pip", "install", "--dry-run", "--upgrade", "--python", sys.executable, "setuptools"]
    return found if subprocess.run(ask, capture_output=True, check=False).returncode == 0 else None


def install_beside(target: Path, requirements: Path) -> None:
    """Install packages into a folder: programs find them there by PYTHONPATH, and the tests do not."""
    pip = (
        [uv, "pip", "install", "--python", sys.executable]
        if (uv := _uv())
        else [sys.executable, "-m", "pip", "install"]
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    subprocess.run(
        [*pip, "--quiet", "--target", str(target), "--requirement", str(requirements)], env=environment, check=True
    )


class Environment:
    """An empty environment, and a folder in which the commands of a README are typed."""

    def __init__(self, path: Path, folder: Path, wheel: Path, **variables: str) -> None:
        self._path, self._folder, self._wheel = path, folder, wheel
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        self._variables = {**inherited, **variables, "PATH": f"{path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        make = [uv, "venv", "--quiet", "--python", sys.executable] if (uv := _uv()) else [sys.executable, "-m", "venv"]
        subprocess.run([*make, str(path)], check=True)

    def type(self, line: str) -> str:
        """Run a command line and return what it printed. `pip install` gets this project from the wheel."""
        words = shlex.split(line, comments=True)
        if words[:2] == ["pip", "install"]:
            return self._install(words[2:])
        if words[0] == "export":
            for name, _, value in (word.partition("=") for word in words[1:]):
                self._variables.setdefault(name, value)
            return ""
        if words[0] == "." or words[1:3] == ["-m", "venv"]:
            return ""
        return self._run(words)

    @contextmanager
    def running(self, line: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program in the folder; kill what is left of it at the end."""
        with subprocess.Popen(
            shlex.split(line), cwd=self._folder, env=self._variables | variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def succeeds(self, line: str, **variables: str) -> bool:
        """Return whether a command exits with status 0."""
        return not subprocess.run(
            shlex.split(line), cwd=self._folder, env=self._variables | variables, stdin=subprocess.DEVNULL,
            capture_output=True, check=False, timeout=100,
        ).returncode  # fmt: skip

    def _install(self, words: list[str]) -> str:
        python = str(self._path / "bin" / "python")
        ours = [word for word in words if word.startswith("pgqworker")]
        extras = ours[0].removeprefix("pgqworker") if ours else ""
        rest = [word for word in words if word not in ours]
        pip = [uv, "pip", "install", "--python", python] if (uv := _uv()) else [python, "-m", "pip", "install"]
        return self._run([*pip, "--quiet", f"{self._wheel}{extras}", *rest])

    def _run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self._folder, env=self._variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(words)}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout
