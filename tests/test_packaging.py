"""What is shipped: the packages of the tree, the SQL, and nothing that shadows the standard library."""

import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.environment import ROOT, SOURCES, build_wheel

#: What stands in a tree and belongs to nobody else's.
LEFT_OUT = (".venv*", ".git", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", "results.json",
            "chaos-evidence")  # fmt: skip
LIGHT = """
import sys
before = set(sys.modules)
import qworker
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a source distribution holds, by path from its own folder; built from a copy of this tree."""
    tree = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, "dist"], cwd=tree, check=True, capture_output=True)
    (built,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(built) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def packages() -> set[str]:
    """Every folder with an __init__.py below the two source roots, by its dotted name."""
    found = (path.parent for source in SOURCES.values() for path in source.rglob("__init__.py"))
    return {".".join(folder.relative_to(ROOT).parts[1:]) for folder in found}


def data() -> set[str]:
    """What is no Python and belongs to the packages, as a wheel names it."""
    # Whoever imports a module for the first time writes a file of a passing name into __pycache__.
    sources = (path for source in SOURCES.values() for path in source.rglob("*") if "__pycache__" not in path.parts)
    return {"/".join(p.relative_to(ROOT).parts[1:]) for p in sources if p.is_file() and p.suffix != ".py"}


def test_the_listed_packages_are_the_packages_of_the_tree(metadata: configparser.ConfigParser) -> None:
    assert set(metadata["options"]["packages"].split()) == packages()


def test_every_module_is_in_a_package() -> None:
    for source in SOURCES.values():
        for module in source.rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module} is in no package and would not be shipped"


def test_nothing_shadows_the_standard_librarys_queue() -> None:
    ignored = (".venv*", ".git", ".*_cache", "build")  # the cache of pytest holds environments, too
    ours = [
        path
        for path in ROOT.rglob("queue*")
        if not any(fnmatch(part, pattern) for part in path.relative_to(ROOT).parts for pattern in ignored)
    ]
    assert ROOT / "queue" in ours
    assert [path for path in ours if path.name == "queue.py"] == []
    assert [path for path in ours if path.is_dir() and (path / "__init__.py").exists()] == []


def test_importing_qworker_stays_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert "qworker" in done.stdout.split()
    assert not {"click", "structlog", "croniter", "qworkerd", "multiprocessing"} & set(done.stdout.split())


def test_a_wheel_carries_packages_sql_and_type_markers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {str(Path(n).parent).replace("/", ".") for n in names if n.endswith("__init__.py")} == packages()
    assert {name for name in names if not name.endswith(".py")} == data()
    assert {"qworker/py.typed", "qworkerd/py.typed"} <= data()
    assert any(re.fullmatch(r"qworker/sql/\d{4}_\w+\.sql", name) for name in names)
    assert any(re.fullmatch(r"qworker/sql/queries/\w+\.sql", name) for name in names)


def test_a_source_distribution_carries_what_its_tests_need(sdist: set[str]) -> None:
    shipped = ("tests", "docs", "examples", "systemd", "supervisor", "benchmarks", "queue", "workers", ".ci")
    needed = {
        str(path.relative_to(ROOT))
        for folder in shipped
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not any(fnmatch(part, pattern) for part in path.parts for pattern in LEFT_OUT)
    }
    needed |= {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "setup.cfg"}
    assert needed - sdist == set()
    assert [name for name in sdist if "__pycache__" in name or ".venv" in name] == []


def test_a_wheel_installs_into_an_empty_environment_and_runs(
    wheel: Path, metadata: configparser.ConfigParser, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    subprocess.run([bin_ / "python", "-m", "pip", "install", "--quiet", f"{wheel}[binary]"], check=True)

    version = subprocess.run([bin_ / "qworker", "--version"], cwd="/", capture_output=True, text=True, check=True)
    assert metadata["metadata"]["version"] in version.stdout.split()
    sql = subprocess.run([bin_ / "qworker", "db", "sql"], cwd="/", capture_output=True, text=True, check=True)
    assert "CREATE TABLE" in sql.stdout
