"""Completion in real shells, with values that nodes report."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import click
import pytest

from qworkerd.cli.main import main
from tests.database import Database
from tests.qworkerd.conftest import Command

needs_bash, needs_zsh, needs_fish = (
    pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell}") for shell in ("bash", "zsh", "fish")
)

#: A group of errors and an operation.
GROUP = """
    INSERT INTO qworker.error_group (fingerprint, count, first_seen, last_seen, first_job, task, type, queues, samples)
    VALUES (255, 1, now(), now(), 1, 'send', 'E', '{mail}', '{1}')
"""
OPERATION = """
    INSERT INTO qworker.operation (id, action, filter, upper_id, below, actor)
    VALUES (17, 'retry', 'queue:mail', 1, 1, 'ann')
"""


@pytest.fixture
def environment(folder: Path, shop: Path, database: Database, command: Command) -> dict[str, str]:
    """The environment of a shell in which the command is on the PATH, with a node and a schedule in the database."""
    for shell in ("bash", "zsh", "fish"):
        (folder / f"completion.{shell}").write_text(command("completion", shell).stdout)
    program = folder / "qworker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qworkerd "$@"\n')
    program.chmod(0o755)
    conn = database.connect()
    conn.execute(
        "INSERT INTO qworker.node (name, version, queues, worker_count, lease_seconds, state)"
        """ VALUES ('web1', '1', '{mail,mail.eu,default}', 1, 30, '{"workers": [{"worker": 1, "job": 4711}]}')"""
    )
    conn.execute(
        "INSERT INTO qworker.cron (name, task, expression, timezone, declared_by)"
        " VALUES ('nightly', 'shop.report', '0 0 * * *', 'UTC', 1)"
    )
    conn.execute("INSERT INTO qworker.series (queue, task) VALUES ('reports', 'shop.yearly')")
    conn.execute(
        "INSERT INTO qworker.job (task, queue, args) VALUES ('t', 'mail', %s), ('t', 'other', %s)",
        [
            json.dumps(
                {"user": {"id": 42}, "password": "hunter2", "$(touch x)": 1, "evil": "$(touch x)", "kind": "new"}
            ),
            json.dumps({"user": {"id": 43}}),
        ],
    )
    conn.execute(GROUP)
    conn.execute(OPERATION)
    return {
        "PATH": f"{folder}:/usr/bin:/bin", "QWORKER_DSN": database.dsn, "HOME": str(folder), "TERM": "dumb",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / name) for name in ("queue", "workers")]),
    }  # fmt: skip


def completed(environment: dict[str, str], line: str, breaks: str = "") -> list[str]:
    """Return what bash offers for a line: what replaces the part behind the last colon."""
    script = f"""
        source completion.bash
        {breaks}
        COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}}
        COMP_POINT=${{#COMP_LINE}}
        _qworker_completion qworker 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return [word for word in done.stdout.splitlines() if word]


#: What is typed, and the words that are offered for the last one.
LINES = [
    ("qworker jobs list qu", ["queue:"]), ("qworker jobs list queue:ma", ["queue:mail", "queue:mail.eu"]),
    ("qworker jobs list state:failed,r", ["state:failed,retrying", "state:failed,running"]),
    ("qworker jobs retry queue:mail node:", ["node:web1"]), ("qworker jobs list cron:n", ["cron:nightly"]),
    ("qworker jobs list task:shop", ["task:shop.report", "task:shop.yearly"]),
    ("qworker jobs list age:", ["age:>", "age:<"]), ("qworker jobs list by:", ["by:cron", "by:hook"]),
    ("qworker jobs list args", ["args."]), ("qworker jobs list queue:mail args.us", ["args.user."]),
    ("qworker jobs list queue:mail args.user.id:", ["args.user.id:42"]),
    ("qworker jobs list -args.kind:n", ["-args.kind:new"]), ("qworker jobs list -queue:mail.", ["-queue:mail.eu"]),
    ("qworker jobs list queue:mail args.", ["args.user.", "args.evil:", "args.kind:"]),
    ("qworker jobs list args.evil:", []), ("qworker jobs list args.password:", []), ("qworker jobs can", ["cancel"]),
    ("qworker operations s", ["show", "stop"]), ("qworker jobs list --so", ["--sort"]),
    ("qworker jobs list --sort ", ["newest", "oldest", "slowest"]), ("qworker jobs list nothing:x", []),
    ("qworker jobs list queue:re", ["queue:reports"]),
    ("qworker workers pause w", ["web1"]),
    ("qworker queues show ma", ["mail", "mail.eu"]), ("qworker queues stats re", ["reports"]),
    ("qworker cron run ni", ["nightly"]), ("qworker cron pause nightly ni", ["nightly"]),
    ("qworker stats --task shop.y", ["shop.yearly"]), ("qworker stats --queue ma", ["mail", "mail.eu"]),
    ("qworker errors list --task shop.r", ["shop.report"]), ("qworker errors show 00", ["00000000000000ff"]),
    ("qworker errors retry 0", ["00000000000000ff"]), ("qworker audit --schedule n", ["nightly"]),
    ("qworker ping --node w", ["web1"]), ("qworker jobs move 1 --queue mail.", ["mail.eu"]),
    ("qworker jobs stack 4", ["4711"]), ("qworker operations stop 1", ["17"]),
    ("qworker queues pause ma", ["mail", "mail.eu"]), ("qworker completion ", ["bash", "zsh", "fish"]),
]  # fmt: skip


@needs_bash
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash_completes_commands_options_keys_and_values(
    environment: dict[str, str], line: str, expected: list[str]
) -> None:
    # bash replaces what follows the last colon.
    assert sorted(completed(environment, line)) == sorted(word[word.find(":", 0, -1) + 1 :] for word in expected)


@needs_fish
def test_fish_completes_commands_options_keys_and_values(environment: dict[str, str]) -> None:
    script = "source completion.fish; for line in $argv; complete -C $line; echo =; end"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, *(line for line, _ in LINES)], env=environment, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    offers = [[word.partition("\t")[0] for word in part.splitlines() if word] for part in done.stdout.split("=\n")]
    for (line, expected), offered in zip(LINES, offers, strict=False):
        assert sorted(offered) == sorted(expected), line


#: Writes what is offered, and the line that is edited then.
ZSH = r"""
autoload -Uz compinit; compinit -u -D
source completion.zsh
compadd() {
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "$@"; return }
    local -a found
    builtin compadd -A found "$@"
    builtin compadd "$@"
    offered+=("${(@Q)found}")
}
complete-and-show() {
    typeset -ga offered=()
    zle complete-word
    print -r -- "@@${(j:|:)offered}|=$BUFFER@@"
}
zle -N complete-and-show; bindkey '^I' complete-and-show
echo rea""dy
"""


@needs_zsh
def test_zsh_completes_commands_options_keys_and_values(environment: dict[str, str], folder: Path) -> None:
    (folder / "prepare.zsh").write_text(ZSH)
    pid, master = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment | {"PS1": "> ", "COLUMNS": "400"})
    try:
        os.write(master, b"source prepare.zsh\n")
        read_until(master, b"ready\r\n")
        for line, expected in LINES:
            os.write(master, line.encode() + b"\t")
            shown = read_until(master, b"@@\r\n").decode().split("@@")[-2]
            offered, _, edited = shown.partition("|=")
            assert sorted(filter(None, offered.split("|"))) == sorted(expected), line
            if len(expected) == 1:
                (word,) = expected
                assert edited == f"{line.rpartition(' ')[0]} {word}{' ' * (word[-1] not in ':.')}"
            os.write(master, b"\x15")
    finally:
        os.write(master, b"\x15exit\n")
        os.waitpid(pid, 0)
        os.close(master)


@needs_bash
def test_a_bash_that_does_not_split_at_colons_gets_whole_words(environment: dict[str, str]) -> None:
    assert completed(environment, "qworker jobs list queue:mail.", "COMP_WORDBREAKS=' '") == ["queue:mail.eu"]


@needs_bash
def test_the_tasks_of_the_application_are_completed_whatever_it_prints(environment: dict[str, str], shop: Path) -> None:
    shop.write_text(f"print('loading')\n{shop.read_text()}")
    named = environment | {"QWORKER_APP": "shop:app"}
    assert sorted(completed(named, "qworker jobs list task:shop.")) == [
        "shop.fail",
        "shop.report",
        "shop.send",
        "shop.yearly",
    ]
    assert completed(named, "qworker enqueue shop.f") == ["shop.fail"]


@needs_bash
def test_a_database_that_cannot_be_reached_offers_nothing_and_says_nothing(environment: dict[str, str]) -> None:
    away = environment | {"QWORKER_DSN": "host=127.0.0.1 port=1"}
    assert completed(away, "qworker jobs list queue:ma") == []
    assert completed(away, "qworker jobs list state:fa") == ["failed"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_names_the_command(command: Command, shell: str) -> None:
    done = command("completion", shell)
    assert done.exit_code == 0
    assert "_QWORKER_COMPLETE" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True, timeout=30)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[int]:
    """The terminal of an interactive bash with the completion."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment | {"PS1": "> "})
    os.write(master, b'source completion.bash; echo rea""dy\n')
    read_until(master, b"ready\r\n")
    yield master
    os.write(master, b"\x15exit\n")
    os.waitpid(pid, 0)
    os.close(master)


def read_until(master: int, wanted: bytes) -> bytes:
    seen, until = b"", monotonic() + 30
    while wanted not in seen:
        assert select.select([master], [], [], max(until - monotonic(), 0))[0], seen
        seen += os.read(master, 4096)
    return seen


@needs_bash
def test_a_tab_at_the_prompt_completes_a_value_and_a_key_without_a_blank(terminal: int) -> None:
    os.write(terminal, b"qworker jobs list no\t")
    read_until(terminal, b"list node:")
    os.write(terminal, b"we\t")
    assert b"node:web1 " in b"node:" + read_until(terminal, b"web1 ")


#: The parameters that name something which is listed somewhere, and groups whose NAME does.
NAMED = {"queue", "task", "schedule", "node", "nodes", "fingerprint", "operation_id"}
LISTED = ("queues", "cron", "tasks")


def named_parameters(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from named_parameters(found, (*path, name))
            continue
        for param in found.params:
            if param.name in NAMED or (path[:1] and path[0] in LISTED and param.name in ("name", "names")):
                yield " ".join((*path, name, param.opts[-1])), param


def test_every_name_that_is_listed_somewhere_is_completed() -> None:
    found = dict(named_parameters(main))
    assert len(found) > 25
    assert [path for path, param in found.items() if param._custom_shell_complete is None] == []
