"""Run tests of other projects, unchanged, against qworker's backend for Django's tasks, and our own on the same Django.

    python .ci/conformance/run.py [--django VERSION ...] [--folder FOLDER]

This makes an environment, downloads source distributions, and runs `suites.py` for each version of Django, all at once.
Most of the time goes into what processors do, so nothing is installed twice or compiled, and Django is not installed at
all: it runs from its source distribution.
Needs Python 3.12 or newer, which is searched for, and PyPI. No text of those tests is part of this project.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
#: The versions of Django, and which Python may run them.
VERSIONS = ("6.0", "6.1")
OLDEST = (3, 12)
#: Projects whose tests are adopted; both ship them in their source distributions.
OTHERS = {"django-tasks-db": "0.13.0", "django-tasks-rq": "0.12.0"}

#: What builds the source distributions and the project, and what is installed for the tests.
BUILD = ("setuptools>=83",)
PACKAGES = (
    "asgiref>=3.9.1",
    "sqlparse>=0.5",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "pytest-postgresql",
    "hypothesis",
)
#: What is taken from source distributions.
WANTED = ("django/", "tests/tasks/", "tests/tests.py")

#: Our own tests whose result may depend on the version of Django. All of them run on 5.2, with the whole suite; here
#: those of pages run on each version, and the others on the last one.
PAGES = ("admin", "dashboard")
OWN = (*PAGES, "around", "backend", "checks", "doubles", "drain", "models")


def interpreter() -> str | None:
    """Return a Python that Django 6 runs on."""
    check = f"import sys, venv; sys.exit(sys.version_info < {OLDEST})"
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


def environment(python: str, folder: Path) -> Path:
    """Make the environment that all versions share, with what builds packages; return its Python."""
    own = folder / "python" / "bin" / "python"
    if not (folder / "python" / "installed").exists():
        # The pip of this Python installs into it, unless it is too old for the other one.
        subprocess.run([python, "-m", "venv", "--clear", "--without-pip", folder / "python"], check=True)
        if subprocess.run(_pip(own, "list"), capture_output=True, check=False).returncode:
            subprocess.run([own, "-m", "ensurepip", "--default-pip"], check=True, capture_output=True)
        pip(own, "install", "--no-compile", *BUILD)  # what it compiled would mostly not be imported
    return own


def install(own: Path, folder: Path) -> None:
    """Install the project and what its tests need, but no Django, unless the requirements are the same as before."""
    stamp = folder / "python" / "installed"
    wanted = "\n".join([*PACKAGES, (PROJECT / "setup.cfg").read_text(), (PROJECT / "pyproject.toml").read_text()])
    if not stamp.exists() or stamp.read_text() != wanted:
        pip(own, "install", "--no-compile", "--no-build-isolation", "--editable", f"{PROJECT}[demo,web]", *PACKAGES)
        stamp.write_text(wanted)


def pip(python: Path, *arguments: str) -> None:
    """Run pip for a Python; its notes are of no interest."""
    command = _pip(python, *arguments)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _pip(python: Path, *arguments: str) -> list[str]:
    own = [str(python), "-m", "pip"] if python.with_name("pip").exists() else []
    command = own or [sys.executable, "-m", "pip", "--python", str(python)]
    return [*command, "--quiet", "--disable-pip-version-check", *arguments]


def sdist(python: Path, requirement: str, folder: Path) -> Path:
    """Bring a source distribution, unless it is there; return a folder with its `tests`, and its package in `lib`.

    Django is run from there: no version of it has to be installed.
    """
    target = folder / re.sub(r"[^\w.]+", "-", requirement)
    if (target / "complete").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    # pip downloads the sources only together with the metadata that it generates from them.
    only_sources = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:")
    pip(python, "download", *only_sources, "--dest", str(target), requirement)
    (archive,) = target.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        for member in file:
            _, _, rest = member.name.partition("/")
            member.name = rest if rest.startswith("tests/") else f"lib/{rest}"
            if rest.startswith(WANTED) and not rest.endswith(".po"):
                file.extract(member, target, filter="data")
    archive.unlink()
    (target / "complete").touch()
    return target


def run(python: Path, django: Path, others: list[Path], log: Path) -> int:
    """Run the adopted suites with a log; return their exit code."""
    command = [
        python, HERE / "suites.py", "--django-tests", django / "tests",
        "--db-tests", others[0] / "tests" / "tests.py", "--rq-tests", others[1] / "tests" / "tests.py",
    ]  # fmt: skip
    code = logged(command, django, log)
    lines = log.read_text().splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("Django ")), None)
    print("\n".join(lines[begin:] if begin is not None and code == 0 else lines), flush=True)
    print(f"   (log: {log})")
    return code


def run_own(python: Path, django: Path, names: Iterable[str], log: Path) -> int:
    """Run our own tests with a log; return their exit code."""
    files = [PROJECT / "tests" / "contrib" / "django" / f"test_{name}.py" for name in names]
    code = logged([python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *files], django, log)
    lines = log.read_text().splitlines()
    # What is printed is the version that was imported.
    shown = subprocess.run(
        [python, "-m", "django", "--version"], capture_output=True, text=True, check=True, env=on(django)
    ).stdout.strip()
    print(
        "\n".join([f"our own tests of {', '.join(names)} on Django {shown}:", *(lines if code else lines[-1:])]),
        flush=True,
    )
    return code


def logged(command: list[str | Path], django: Path, log: Path) -> int:
    """Run a command on a version of Django with a log; return its exit code."""
    with log.open("w") as file:
        return subprocess.run(command, stdout=file, stderr=file, cwd=PROJECT, env=on(django), check=False).returncode


def on(django: Path) -> dict[str, str]:
    """Return an environment in which a version of Django is imported."""
    path = os.pathsep.join(filter(None, (str(django / "lib"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path}


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
    own = environment(python, folder)
    with ThreadPoolExecutor(max_workers=16) as pool:
        installed = pool.submit(install, own, folder)
        others = [pool.submit(sdist, own, f"{name}=={number}", folder) for name, number in OTHERS.items()]
        django = {version: pool.submit(sdist, own, f"django~={version}.0", folder) for version in versions}

        def suites(version: str) -> int:
            installed.result()
            return run(own, django[version].result(), [o.result() for o in others], folder / f"django-{version}.log")

        def ours(version: str) -> int:
            installed.result()
            names = OWN if version == versions[-1] else PAGES
            return run_own(own, django[version].result(), names, folder / f"own-{version}.log")

        # All of them use servers and nodes of their own.
        runs = [] if given.only_suites else [pool.submit(ours, version) for version in versions]
        runs += [pool.submit(suites, version) for version in versions]
        codes = [done.result() for done in runs]  # of all of them, also after one has failed
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
