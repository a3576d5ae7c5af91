"""Connection strings that are not written as they should be: what is said of them holds no piece of a password."""

import traceback

import pytest

from qworker import App
from qworker.db.dsn import ambiguity, display, parse, secrets
from qworker.errors import ConfigurationError, DatabaseUnavailable

S = "s3cr3t"
SHAPES = {
    "a percent sign": f"postgresql://u:{S}%zz@127.0.0.1:1/db",
    "a percent sign before it": f"postgresql://u:100%{S}@127.0.0.1:1/db",
    "an at sign": f"postgresql://u:p@{S}@127.0.0.1:1/db",
    "an at sign and a slash": f"postgresql://u:p@{S}/x@127.0.0.1:1/db",
    "a slash": f"postgresql://u:p/{S}@127.0.0.1:1/db",
    "a slash behind it": f"postgresql://u:{S}/p@127.0.0.1:1/db",
    "a colon": f"postgresql://u:p:{S}@127.0.0.1:1/db",
    "an encoded colon": f"postgresql://u%3A{S}@127.0.0.1:1/db",
    "a hash": f"postgresql://u:p#{S}@127.0.0.1:1/db",
    "a question mark": f"postgresql://u:p?{S}@127.0.0.1:1/db",
    "a slash and a question mark": f"postgresql://u:p/{S}?user=x@127.0.0.1:1/db",
    "a query": f"postgresql://u:p/a?{S}=x@127.0.0.1:1/db",
    "a blank": f"postgresql://u:p w{S}@127.0.0.1:1/db",
    "a newline": f"postgresql://u:{S}\n@127.0.0.1:1/db",
    "a bracket": f"postgresql://u:{S}@[127.0.0.1:1/db",
    "a user with an at sign": f"postgresql://u@corp:{S}@127.0.0.1:1/db",
    "no host": f"postgresql://u:{S}/db",
    "several hosts, each with a password": f"postgresql://u:{S}@127.0.0.1:1,u:{S}@127.0.0.1:2/db",
    "several hosts": f"postgresql://u:{S}@127.0.0.1:1,127.0.0.1:2/db",
    "one slash": f"postgresql:/u:{S}@127.0.0.1:1/db",
    "another scheme": f"mysql://u:{S}@127.0.0.1:1/db",
    "no scheme": f"u:{S}@127.0.0.1:1/db",
    "quotation marks": f'"postgresql://u:{S}@127.0.0.1:1/db"',
    "an unknown option": f"postgresql://u:{S}@127.0.0.1:1/db?pgbouncer=true",
    "other secrets": f"postgresql://u:x@127.0.0.1:1/db?options=-c%20a.b%3D{S}&sslpassword={S}&passfile=/{S}",
    "a blank without quotes": f"host=127.0.0.1 port=1 password=a {S} dbname=x",
    "an option in the password": f"host=127.0.0.1 port=1 password=a {S}=b dbname=x",
    "a quote left open": f"host=127.0.0.1 port=1 password='a {S} dbname=x",
    "a quote in the middle": f"host=127.0.0.1 port=1 password='a'{S} dbname=x",
    "semicolons": f"host=127.0.0.1;port=1;password={S}",
    "semicolons and other words": f"host=127.0.0.1;pwd={S}",
    "another driver's": f"Host=127.0.0.1;Username=u;Password={S}",
    "a surrogate": f"postgresql://u:{S}\udcff@127.0.0.1:1/db",
    "a NUL": f"postgresql://u:{S}\0@127.0.0.1:1/db",
}
WELL_FORMED = ["a colon", "a hash", "a question mark", "a newline", "several hosts", "other secrets"]

shapes = pytest.mark.parametrize("dsn", SHAPES.values(), ids=SHAPES)


@shapes
def test_an_exception_holds_no_piece_of_it(dsn: str) -> None:
    with pytest.raises((DatabaseUnavailable, ConfigurationError)) as raised:
        App(dsn).queue("default").size()
    message = "".join(traceback.format_exception(raised.value))
    assert S not in message


@shapes
def test_what_is_displayed_holds_no_piece_of_it(dsn: str) -> None:
    assert S not in display(dsn)


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in WELL_FORMED])
def test_what_is_wrong_is_reported_with_what_to_do(name: str) -> None:
    try:
        message = ambiguity(SHAPES[name])
    except ConfigurationError as error:
        message = str(error)
    assert message
    assert any(word in message for word in ("percent-encode", "single quotes", "remove ", "begin with postgresql://"))


@pytest.mark.parametrize("name", WELL_FORMED)
def test_of_one_that_can_be_read_the_rest_is_shown(name: str) -> None:
    assert ambiguity(SHAPES[name]) is None
    assert "host=127.0.0.1" in display(SHAPES[name])
    assert "password=***" in display(SHAPES[name])


@pytest.mark.parametrize(
    "dsn",
    [
        "", "dbname=x", "host=/run/postgresql", "user=u@corp password=x host=h", "postgresql://h1:1,h2:2/db?target_session_attrs=any",
        "postgresql:///db?host=/run/postgresql", "postgresql://u:a%40b@[::1]:5432/db", "postgresql://h/db?user=u@corp",
    ],
)  # fmt: skip
def test_one_that_is_well_formed_is_not_doubted(dsn: str) -> None:
    assert ambiguity(dsn) is None
    assert {name: value for name, value in parse(display(dsn)).items() if name != "password"}.items() <= parse(
        dsn
    ).items()


@pytest.mark.parametrize(
    "name", [name for name in SHAPES if name not in ("other secrets", "semicolons and other words")]
)
def test_every_piece_that_may_belong_to_the_password_is_known(name: str) -> None:
    rest = SHAPES[name]
    for secret in sorted(secrets(SHAPES[name]), key=len, reverse=True):
        if len(secret) >= 6:
            rest = rest.replace(secret, "***")
    assert S not in rest
