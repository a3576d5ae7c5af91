"""How connections of the framework are named, so that those of a dead process can be found."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from qworker.connection import conninfo

TAG = "#" + "h" * 24 + ".1234567.123456789"


@pytest.mark.parametrize(
    ("dsn", "begins"), [("", "qworker "), ("application_name=shop", "shop "), (f"application_name={'s' * 63}", "ss")]
)
def test_a_session_is_named_by_its_role_whatever_the_dsn_says(dsn: str, begins: str) -> None:
    name = str(conninfo_to_dict(conninfo(dsn, f"worker 12 {TAG}"))["application_name"])
    assert name.startswith(begins)
    assert name.endswith(f" worker 12 {TAG}")
    assert len(name) <= 63
