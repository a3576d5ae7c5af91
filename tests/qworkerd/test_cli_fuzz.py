"""Whatever is typed: the command does it, or says what is wrong; nobody ever sees a traceback from inside."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qworkerd.process import exits
from tests.qworkerd.conftest import Command

TYPED = r"""
--json --state failed --queue default --limit 0 -1 99999999999999999999 --below --task send report {} [] {"user_id":1}
[1] null NaN "\ud800" {"user_id":"\u0000"} --priority 10 --delay nan inf -5 1e400 --unique --tag ' %s --help -- - --all
--yes state:failed queue:default -tag:x -by:hook args.user_id:>1 age:>1h fp:0* message:"a "b --rate 5/s --detach
--sort oldest --args --above
"""
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [*TYPED.split(), "[[" * 2000, "\x1b[2J"]
)
COMMANDS = (
    "enqueue|jobs list|jobs show|jobs retry|jobs cancel|jobs discard|jobs again|jobs run-now|jobs move|operations list|"
    "operations stop|completion|queues|workers|cron|db status|check"
)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", COMMANDS.split("|"))
def test_a_command_ends_with_a_code_that_means_something(command: Command, name: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(words, max_size=5))
    def typed(rest: Any) -> None:
        result = command(*name.split(), *rest, env={"QWORKER_APP": "shop:app"}, stdin="")
        assert result.exit_code in {exits.OK, exits.FAILURE, exits.USAGE, exits.CONFIG}, result.output
        assert "Traceback" not in result.output
        assert result.exit_code == 0 or result.output.strip()

    typed()
