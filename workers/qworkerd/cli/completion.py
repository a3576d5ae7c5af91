"""Completion of words of the command line: the script for a shell, and values that the database knows.

Values come from small tables and from what nodes report. Only names and values of arguments come from jobs: from some
of the newest ones that match the terms before.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from typing import ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from qworker.filters import KEYS, parse
from qworker.filters.keys import ARGS, Kind
from qworker.filters.offers import is_argument, read_sample
from qworker.operations import Operations
from qworker.statistics import Statistics
from qworkerd.cli.options import given
from qworkerd.config.target import Target, resolve
from qworkerd.log.pairs import shown_offers

#: The variable with which a shell asks for completions, and the shells.
VARIABLE = "_QWORKER_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
COMPARISONS = (">", "<")
#: Groups of errors and operations that are offered: the newest ones.
NEWEST = 100

#: The names that are completed. bash inserts a word as it is: a part in $( ) would run when the line is entered, and
#: a client that may enqueue chooses the names of queues.
_HARMLESS = re.compile(r"\w[\w.:@+/-]*")
#: Terms that compare arguments and are offered: what has to be quoted in a filter, a shell would take for its own.
_HARMLESS_ARGUMENT = re.compile(r"-?args\.[\w.:@+/,-]*", re.IGNORECASE)
_PREFIX = re.compile(r"(-?)([A-Za-z_]+):(.*,)?([^,]*)", re.DOTALL)


@click.command(short_help="Print the script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, and the names of queues, tasks, nodes and schedules.

    \b
    bash: qworker completion bash > ~/.local/share/bash-completion/completions/qworker
    zsh:  qworker completion zsh > "${fpath[1]}/_qworker"
    fish: qworker completion fish > ~/.config/fish/completions/qworker.fish
    """  # noqa: D301 - click reads the backspace as: do not wrap this paragraph
    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101
    click.echo(kind(root.command, {}, "qworker", VARIABLE).source())


@add_completion_class
class Bash(BashComplete):
    """Completes words with colons: bash splits them there, and replaces only what follows the last colon."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" cut="" word type value
    word="${line##*[[:space:]]}"
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        cut="${word%%:*}:"
    fi
    while IFS=, read -r type value; do
        if [[ $type == plain ]]; then
            COMPREPLY+=("${value#"$cut"}")
        elif [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == file ]]; then
            compopt -o default
        fi
    done < <(QWORKER_COMPLETE_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:.] ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def source(self) -> str:
        """Return the script."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one that is to be completed."""
        line = os.environ.get("QWORKER_COMPLETE_LINE", "")
        words = split_arg_string(line)[1:]
        return (words, "") if not line or line[-1].isspace() or not words else (words[:-1], words[-1])


@add_completion_class
class Zsh(ZshComplete):
    """Adds no blank behind a key, whose value follows."""

    name: ClassVar[str] = "zsh"
    source_template: ClassVar[str] = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response values lines keys key_lines
    local -x COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete
    local type value help line
    (( $+commands[%(prog_name)s] )) || return 1
    response=("${(@f)$(%(prog_name)s 2>/dev/null)}")
    for type value help in "${response[@]}"; do
        line="$value"
        [[ "$help" == _ ]] || line="$value  -- $help"
        if [[ "$type" == dir ]]; then
            _path_files -/
        elif [[ "$type" == file ]]; then
            _path_files -f
        elif [[ "$type" == plain && "$value" == *[:.] ]]; then
            keys+=("$value") key_lines+=("$line")
        elif [[ "$type" == plain ]]; then
            values+=("$value") lines+=("$line")
        fi
    done
    (( $#keys )) && compadd -U -V unsorted -S "" -l -d key_lines -a keys
    (( $#values )) && compadd -U -V unsorted -l -d lines -a values
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

    def format_completion(self, item: CompletionItem) -> str:
        """Return the three lines of an item."""
        return f"{item.type}\n{item.value}\n{item.help or '_'}"


@add_completion_class
class Fish(FishComplete):
    """Completes words with commas."""

    name: ClassVar[str] = "fish"
    source_template: ClassVar[str] = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp | string collect) \
COMP_CWORD=(commandline -ct | string collect) %(prog_name)s 2>/dev/null)
    for completion in $response
        set -l parts (string split -m 1 "," -- $completion)
        if test "$parts[1]" = dir
            __fish_complete_directories $parts[2]
        else if test "$parts[1]" = file
            __fish_complete_path $parts[2]
        else if test "$parts[1]" = plain
            echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


def complete_filter(context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a term of a filter: its key, or the last of its values."""
    if is_argument(incomplete):
        return [CompletionItem(term) for term in _arguments(context, incomplete)]
    found = _PREFIX.fullmatch(incomplete)
    if found is None:
        return [
            CompletionItem(f"{key.name}{'.' if key.name == ARGS else ':'}", help=key.help)
            for key in KEYS.values()
            if key.name.startswith(incomplete.lower())
        ]
    minus, name, before, last = found.groups(default="")
    start = f"{minus}{name}:{before}"
    return [CompletionItem(f"{start}{value}") for value in _values(context, name.lower()) if value.startswith(last)]


def completing(source: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the completion of an argument or option: a queue, task, node or schedule, or one of the other sources."""

    def complete(context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(value) for value in _known(context, source) if value.startswith(incomplete)]

    return complete


def _arguments(context: click.Context, incomplete: str) -> Iterable[str]:
    """Return the terms that continue one on the arguments, the most frequent first."""

    def read(target: Target) -> Iterable[str]:
        wanted = parse(" ".join(context.params.get("words") or ()))
        return [offer.text for offer in shown_offers(incomplete, read_sample(target.search.arguments(wanted)))]

    return filter(_HARMLESS_ARGUMENT.fullmatch, _read(context, read))


def _values(context: click.Context, key: str) -> Iterable[str]:
    """Return the values of a key."""
    found = KEYS.get(key)
    if found is None:
        return ()
    if found.kind is Kind.DURATION:
        return COMPARISONS
    if found.kind is Kind.CHOICE or key not in _SOURCES:
        return found.choices
    return _known(context, key)


def _known(context: click.Context, source: str) -> Iterable[str]:
    """Return the values of a source."""
    return sorted(filter(_HARMLESS.fullmatch, set(_read(context, _SOURCES[source]))))


def _read(context: click.Context, read: Callable[[Target], Iterable[str]]) -> list[str]:
    """Return what can be read; nothing if it cannot: a prompt is not the place for an error."""
    try:
        with redirect_stdout(sys.stderr):  # an application may print while it is imported
            return list(read(resolve(given(context), app_optional=True)))
    except Exception:  # noqa: BLE001 - a shell that completes shows no error: it offers nothing
        return []


def _queues(target: Target) -> Iterator[str]:
    if target.app is not None:
        yield from (task.queue for task in target.app.tasks.values())
    yield from (name for node in target.admin.nodes() for name in node.queues)
    yield from (pause.queue for pause in target.admin.paused())
    yield from (queue for queue, _ in _counted(target))


def _tasks(target: Target) -> Iterator[str]:
    if target.app is not None:
        yield from target.app.tasks
    yield from (schedule.task for schedule in target.admin.schedules())
    yield from (task for _, task in _counted(target))


def _counted(target: Target) -> list[tuple[str, str]]:
    """Return the queues and tasks of which there are statistics."""
    with target.admin.pool.connection(None) as conn:
        return Statistics(target.schema).names(conn)


def _nodes(target: Target) -> Iterator[str]:
    yield from (node.name for node in target.admin.nodes())


def _schedules(target: Target) -> Iterator[str]:
    yield from (schedule.name for schedule in target.admin.schedules())


def _running(target: Target) -> Iterator[str]:
    """Yield the ids of the jobs that nodes report."""
    yield from (
        str(worker["job"])
        for node in target.admin.nodes()
        for worker in node.reported_workers
        if worker.get("job") is not None
    )


def _fingerprints(target: Target) -> Iterator[str]:
    yield from (group.fingerprint for group in target.admin.error_groups(states=None, limit=NEWEST))


def _operations(target: Target) -> Iterator[str]:
    with target.admin.pool.connection(None) as conn:
        yield from (str(operation.id) for operation in Operations(target.schema).find(conn, limit=NEWEST))


_SOURCES: dict[str, Callable[[Target], Iterator[str]]] = {
    "queue": _queues, "task": _tasks, "node": _nodes, "cron": _schedules, "running job": _running,
    "fingerprint": _fingerprints, "operation": _operations,
}  # fmt: skip
