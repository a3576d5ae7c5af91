"""What `make` says on machines that lack something, and what it does not do twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: How the whole suite is run.
WHOLE = "-m pytest -n 2 --dist loadfile"
#: The shell's side of a Python that says it is recent and has no ensurepip, as Debian's without python3-venv.
WITHOUT_ENSUREPIP = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n'
TOO_OLD = "#!/bin/sh\nexit 1\n"
#: A Python whose environments hold nothing but a program that logs how it was called.
RECORDING = """#!/bin/sh
case "$1 $2" in
    "-c "*|"--version "*) ;;
    "-m venv") mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python" ;;
    *) echo "$@" >> calls ;;
esac
case "$2" in *sys.prefix*) echo "$PWD/.venv" ;; esac
"""


class Checkout:
    """The Makefile in a folder of its own, with no Python but the given ones on the path."""

    def __init__(self, folder: Path, **pythons: str) -> None:
        self.folder = folder / "checkout"
        self.folder.mkdir()
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.path = folder / "bin"
        self.path.mkdir()
        for tool in ("sh", "echo", "touch", "mkdir", "cp", "rm", "grep", "sed", "sort"):
            found = shutil.which(tool)
            assert found, f"{tool} is missing"
            (self.path / tool).symlink_to(found)
        for name, script in pythons.items():
            program = self.path / name.replace("_", ".")
            program.write_text(script)
            program.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("make")
        assert program, "make is missing"
        environ = {"PATH": str(self.path), "HOME": str(self.folder)}
        return subprocess.run(
            [program, *arguments], cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []


def own(output: str) -> list[str]:
    """The lines of the recipes; make adds one of its own when one fails."""
    return [line for line in output.splitlines() if not line.startswith("make: ")]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_missing_venv_package_is_named_in_one_line(target: str, tmp_path: Path) -> None:
    done = Checkout(tmp_path, python3=WITHOUT_ENSUREPIP, python3_12=TOO_OLD).make(target)
    assert done.returncode != 0
    (line,) = own(done.stdout + done.stderr)
    assert "apt-get install python3-venv" in line


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_too_old_python_is_named_in_one_line(target: str, tmp_path: Path) -> None:
    done = Checkout(tmp_path, python3=TOO_OLD).make(target)
    assert done.returncode != 0
    (line,) = own(done.stdout + done.stderr)
    assert "Python 3.11 or newer" in line


def test_the_first_python_that_works_is_taken(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, python3_13=TOO_OLD, python3_12=WITHOUT_ENSUREPIP, python3_11=RECORDING)
    assert checkout.make("test").returncode == 0
    assert checkout.calls()[-1] == WHOLE


def test_packages_are_installed_once_and_again_when_their_list_changes(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, python3=RECORDING)

    checkout.make("test", "PYTEST_ARGS=-k one")
    install, run = checkout.calls()
    assert install.endswith("--editable .[test]")
    assert run == "-m pytest -k one"

    checkout.make("test")
    assert checkout.calls()[2:] == [WHOLE]

    stamp = checkout.folder / ".venv" / "test.stamp"
    later = stamp.stat().st_mtime + 1
    os.utime(checkout.folder / "setup.cfg", (later, later))
    checkout.make("test")
    assert checkout.calls()[3:] == [install, WHOLE]


def test_the_oldest_packages_that_are_allowed_have_an_environment_of_their_own(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, python3=RECORDING)
    done = checkout.make("test-floors")
    assert done.returncode == 0, done.stderr
    install, run = checkout.calls()
    assert install.endswith("--editable .[test]")
    assert run == WHOLE
    assert not (checkout.folder / ".venv").exists()
    oldest = dict(line.split("==") for line in (checkout.folder / ".venv-floors.txt").read_text().splitlines())
    assert set(oldest) == {
        "psycopg", "psycopg-pool", "croniter", "structlog", "click", "pydantic", "django", "sqlalchemy",
        "flask", "psycopg2-binary", "pg8000",
    }  # fmt: skip
    assert oldest["croniter"] == "7"


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, python3=RECORDING)
    checkout.make("test")
    (checkout.folder / ".venv/bin/python").unlink()
    done = checkout.make("test")
    assert done.returncode == 0
    assert len(checkout.calls()) == 4


def test_without_a_target_it_explains_itself(tmp_path: Path) -> None:
    done = Checkout(tmp_path).make()
    assert done.returncode == 0
    assert "make demo" in done.stdout
    assert not (tmp_path / "checkout" / ".venv").exists()
