"""The groups of frameworks hide the options that a framework supplies; `qworker` shows them."""

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from qworkerd.cli.django import qworker as django_group
from qworkerd.cli.flask import qworker as flask_group
from qworkerd.cli.main import main

#: Their lines in the help. `tasks show --schema` is a switch of its own.
SUPPLIED = re.compile(r"^ +--(app|schema) [A-Z]", re.MULTILINE)


def commands(group: click.Group, *words: str) -> Iterator[list[str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield [*words, name]
        if isinstance(found, click.Group):
            yield from commands(found, *words, name)


@pytest.mark.parametrize("group", [flask_group, django_group], ids=["flask", "django"])
def test_no_command_shows_what_the_framework_supplies(group: click.Group) -> None:
    found = list(commands(group))
    assert ["jobs", "list"] in found
    assert ["run"] in found
    for words in found:
        result = CliRunner().invoke(group, [*words, "--help"])
        assert result.exit_code == 0, words
        assert not SUPPLIED.search(result.output), words


@pytest.mark.parametrize("group", [flask_group, django_group], ids=["flask", "django"])
def test_they_are_still_accepted(group: click.Group) -> None:
    result = CliRunner().invoke(group, ["jobs", "list", "--schema", "x", "--help"])
    assert result.exit_code == 0


def test_the_command_itself_shows_them() -> None:
    output = CliRunner().invoke(main, ["jobs", "list", "--help"]).output
    assert set(SUPPLIED.findall(output)) == {"app", "schema"}
