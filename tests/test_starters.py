"""What `qworker init` writes works as printed, in an environment with nothing else in it."""

import re
import shlex
from pathlib import Path
from time import monotonic

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from qworkerd.config.settings import misspelt
from tests.database import Database
from tests.environment import Environment, build_wheel
from tests.waiting import until

#: The command whose output is "N passed" or "Ran N tests", and the words that say that all were good.
TESTED = {
    "plain": ("pytest", "3 passed"),
    "flask": ("pytest", "2 passed"),
    "django": ("python manage.py test", "\nOK\n"),
}

#: The attributes of a service that are used, as the Compose Specification names them.
KEYS = {
    "image", "environment", "ports", "volumes", "healthcheck", "depends_on", "working_dir", "env_file", "command",
    "stop_grace_period",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.mark.parametrize("kind", TESTED)
def test_what_is_written_works_as_printed(kind: str, wheel: Path, empty_database: Database, tmp_path: Path) -> None:
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**conninfo_to_dict(empty_database.dsn))
    folder = tmp_path / "project"
    folder.mkdir()
    environment = Environment(tmp_path / "venv", folder, wheel, DATABASE_URL=url)
    environment.type("pip install pgqworker[binary]")
    written, _, commands = environment.type(f"qworker init --{kind}").partition("\nnext:\n")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {line.removeprefix("wrote ") for line in written.splitlines()} == files

    # There is no Docker here: the variable names a server.
    lines = [line.strip() for line in commands.splitlines() if line.strip() and not line.strip().startswith("docker")]
    printed = {line.partition("  #")[0].rstrip(): environment.type(line) for line in lines}
    command, words = TESTED[kind]
    assert words in printed[command]
    assert "a node can start" in next(text for line, text in printed.items() if line.endswith("check"))
    assert "greet" in next(text for line, text in printed.items() if line.endswith("jobs list"))
    with empty_database.connect() as conn:
        ended = conn.execute("SELECT task, state, result #>> '{}' FROM qworker.jobs").fetchall()
    assert [(task.rpartition(".")[2], state, result) for task, state, result in ended] == [
        ("greet", "completed", "hello, Ada")
    ]
    check_compose(folder, environment, commands, url)


def check_compose(folder: Path, environment: Environment, commands: str, url: str) -> None:
    """Do what compose would do with the services of compose.yaml, outside of containers."""
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "node"}
    for service in services.values():
        assert set(service) <= KEYS
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "retries", "start_period"}
    postgres, node = services["postgres"], services["node"]
    assert node["depends_on"] == {"postgres": {"condition": "service_healthy"}}

    # The node's connection string, and the one that `next` prints for a shell of the host, lead to this server.
    server = {name.removeprefix("POSTGRES_").lower(): value for name, value in postgres["environment"].items()}
    assert set(server) == {"user", "password", "db"}
    address = {"user": server["user"], "password": server["password"], "dbname": server["db"]}
    assert conninfo_to_dict(node["environment"]["DATABASE_URL"]) == address | {"host": "postgres", "port": "5432"}
    (printed,) = re.findall(r"DATABASE_URL=(\S+)", commands)
    host, port, _ = postgres["ports"][0].split(":")
    assert conninfo_to_dict(printed) in [address | {"host": host, "port": port} for host in (host, "localhost")]
    assert shlex.split(postgres["healthcheck"]["test"]) == ["pg_isready", "--username", server["user"]]

    lines = (line for line in (folder / node["env_file"]).read_text().splitlines() if line[:1] != "#")
    variables = dict(line.split("=", 1) for line in lines)
    assert misspelt(variables) == {}
    shell, option, script = shlex.split(node["command"])
    assert (shell, option) == ("sh", "-c")
    install, migrate, run = script.split(" && ")
    assert install == "pip install --quiet -r requirements.txt"  # these packages are installed
    assert run.startswith("exec ")
    with environment.running(f"sh -c '{migrate} && {run}'", **variables, DATABASE_URL=url) as process:
        until(lambda: environment.succeeds(node["healthcheck"]["test"], **variables) or process.poll() is not None, 30)
        assert process.poll() is None
        stopping = monotonic()
        process.terminate()
        assert process.wait(30) == 0
    assert not environment.succeeds(node["healthcheck"]["test"], **variables)
    assert monotonic() - stopping < int(node["stop_grace_period"].removesuffix("s"))
