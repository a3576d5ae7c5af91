"""Run tests of other projects, unchanged, against qworker's backend for Django's tasks, and our own on the same Django.

    python .ci/conformance/run.py [--django VERSION ...] [--folder FOLDER]

For each version of Django this makes an environment, downloads source distributions, and runs `suites.py` in it. Needs
Python 3.12 or newer, which is searched for, and PyPI. No text of those tests is part of this project.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
#: The versions of Django, and which Python may run them.
VERSIONS = ("6.0", "6.1")
OLDEST = (3, 12)
#: Projects whose tests are adopted; both ship them in their source distributions.
OTHERS = {"django-tasks-db": "0.13.0", "django-tasks-rq": "0.12.0"}

#: Our own tests whose result may depend on the version of Django. All of them run on 5.2, with the whole suite.
OWN = [
    PROJECT / "tests" / "contrib" / "django" / f"test_{name}.py"
    for name in ("admin", "around", "backend", "checks", "doubles", "drain", "models")
]


def interpreter() -> str | None:
    """Return a Python that Django 6 runs on."""
    check = f"import ensurepip, sys, venv; sys.exit(sys.version_info < {OLDEST})"
    for python in candidates():
        if subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0:
            return python
    return None


def candidates() -> Iterator[str]:
    """Yield the Pythons that may be there: this one, those of the PATH, and those of pyenv, which need no shims."""
    yield sys.executable
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in (13, 12, 14)))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/3.1[2-9]*/bin/python3"), reverse=True))


def prepare(python: str, version: str, folder: Path, extra: str) -> tuple[Path, dict[str, Path]]:
    """Make the environment of a version, and bring the tests; return its Python and the folders of the tests.

    extra: the packages of the project that are installed, by the name in setup.cfg.
    """
    venv = folder / f"django-{version}"
    own = venv / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", venv], check=True)
    # Nothing is installed again while the requirements are the same: that takes pip some seconds.
    stamp = venv / "installed"
    requirements = f"{extra}\n{(PROJECT / 'setup.cfg').read_text()}{(PROJECT / 'pyproject.toml').read_text()}"
    if not stamp.exists() or stamp.read_text() != requirements:
        pip(own, "install", "--editable", f"{PROJECT}[{extra}]", f"django~={version}.0")
        stamp.write_text(requirements)
    show = [own, "-c", "import django; print(django.get_version())"]
    exact = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    wanted = {"django": exact, **OTHERS}
    return own, {name: sdist(own, name, number, folder) for name, number in wanted.items()}


def pip(python: Path, *arguments: str) -> None:
    """Run pip; its notes are of no interest."""
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def sdist(python: Path, name: str, version: str, folder: Path) -> Path:
    """Download a source distribution, unless it is there; return the folder of its tests."""
    stem = f"{name.replace('-', '_')}-{version}"
    archive, tests = folder / f"{stem}.tar.gz", folder / stem / "tests"
    if not tests.is_dir():
        pip(python, "download", "--no-deps", "--no-binary", name, "--dest", str(folder), f"{name}=={version}")
        with tarfile.open(archive) as file:
            file.extractall(folder, [m for m in file if m.name.startswith(f"{stem}/tests/")], filter="data")
    return tests


def run(python: Path, tests: dict[str, Path], log: Path) -> int:
    """Run the adopted suites with a log; return their exit code."""
    command = [
        python, HERE / "suites.py", "--django-tests", tests["django"],
        "--db-tests", tests["django-tasks-db"] / "tests.py", "--rq-tests", tests["django-tasks-rq"] / "tests.py",
    ]  # fmt: skip
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, cwd=PROJECT, check=False).returncode
    lines = log.read_text().splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("Django ")), None)
    print("\n".join(lines[begin:] if begin is not None and code == 0 else lines), flush=True)
    print(f"   (log: {log})")
    return code


def run_own(python: Path, log: Path) -> int:
    """Run our own tests with a log; return their exit code."""
    command = [python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *OWN]
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, cwd=PROJECT, check=False).returncode
    lines = log.read_text().splitlines()
    print("\n".join(["our own tests:", *(lines if code else lines[-1:])]), flush=True)
    return code


def main() -> int:
    """Run all; return 0 if everything has passed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--django", action="append", metavar="VERSION", help=f"default: {' and '.join(VERSIONS)}")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".venv-conformance")
    parser.add_argument("--only-suites", action="store_true", help="leave out our own tests")
    parser.add_argument(
        "--optional", action="store_true", help="do nothing if there is no Python that is recent enough"
    )
    given = parser.parse_args()
    python, versions = interpreter(), given.django or VERSIONS
    if python is None:
        print("conformance: left out, because Django 6 needs Python 3.12 or newer, and none was found")
        return 0 if given.optional else 1
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    newest = None if given.only_suites else versions[-1]
    with ThreadPoolExecutor() as pool:
        # The archives of the other projects come once: the first version brings them.
        first = prepare(python, versions[0], folder, "test" if versions[0] == newest else "demo")
        rest = pool.map(lambda v: prepare(python, v, folder, "test" if v == newest else "demo"), versions[1:])
        made = dict(zip(versions, [first, *rest], strict=True))
        # All mostly wait, each for servers and nodes of its own.
        ours = None if newest is None else pool.submit(run_own, made[newest][0], folder / "own.log")
        codes = list(pool.map(lambda v: run(*made[v], folder / f"django-{v}.log"), versions))
        codes.append(0 if ours is None else ours.result())
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
