"""How names and messages become markup."""

import pytest

from qworkerd.web.formats import breakable, prose


@pytest.mark.parametrize(
    ("name", "markup"),
    [
        ("shop.mail.send", "shop.mail.send"),
        ("shop.integrations.synchronise_stock", "shop.<wbr>integrations.<wbr>synchronise_<wbr>stock"),
        ("state:failed error:ConnectionRefusedError", "state:failed error:<wbr>ConnectionRefusedError"),
        ("<b>.a-name-that-is-long-enough", "&lt;b&gt;.<wbr>a-name-that-is-long-enough"),
    ],
)
def test_a_long_name_may_break_at_its_parts(name: str, markup: str) -> None:
    assert breakable(name) == markup


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("see `qworker why ID` of a job", "see <code>qworker why ID</code> of a job"),
        ("<i> `<b>` & `", "&lt;i&gt; <code>&lt;b&gt;</code> &amp; `"),
        ("nothing", "nothing"),
    ],
)
def test_what_is_in_backticks_is_code(text: str, markup: str) -> None:
    assert prose(text) == markup
