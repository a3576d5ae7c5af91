"""Who may see and do what: passwords, tokens, proxies, hosts and origins."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from qworker.errors import ConfigurationError
from qworkerd.web import proxies, server, users
from qworkerd.web.access import ALL, READ, Access, FirstOf, rights_of
from qworkerd.web.security import LOOPBACK, host_name
from qworkerd.web.sessions import LARGE, LIFETIME
from qworkerd.web.signin import SignIn
from qworkerd.web.throttle import MAX_KNOWN, MAX_OF_ADDRESS, MAX_OF_USER, MAX_WRONG, PERIOD, Throttle
from tests.web.conftest import SAME_ORIGIN

Make = Callable[..., Flask]


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    users.write(path, "anna@shop", users.hash_password("correct horse"), "all")
    users.write(path, "ben", users.hash_password("battery staple"), "read")
    return path


def sign_in(client: FlaskClient, name: str, password: str, **extra: Any) -> Any:
    form = {"name": name, "password": password, **extra}
    return client.post("/sign-in", data=form, headers=SAME_ORIGIN)


def test_a_user_signs_in_and_out(make_dashboard: Make, users_file: Path) -> None:
    client = make_dashboard(access=SignIn(users_file)).test_client()
    refused = client.get("/?period=24h")
    assert refused.status_code == 303
    assert refused.headers["Location"] == "/sign-in?next=%2F%3Fperiod%3D24h"
    assert client.get("/sign-in").status_code == 200

    done = sign_in(client, "anna@shop", "correct horse", next="/?period=24h")
    assert (done.status_code, done.headers["Location"]) == (303, "/?period=24h")
    cookie = done.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert f"Max-Age={LIFETIME}" in cookie
    assert "anna@shop" in client.get("/").get_data(as_text=True)

    client.post("/sign-out", headers=SAME_ORIGIN)
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/%0aevil", "evil", "/sign-in"]
)
def test_signing_in_leads_to_the_dashboard_only(make_dashboard: Make, users_file: Path, target: str) -> None:
    client = make_dashboard(access=SignIn(users_file)).test_client()
    location = sign_in(client, "ben", "battery staple", next=target).headers["Location"]
    assert location.startswith("/")
    assert "evil.example" not in location
    assert location in {"/", "/%0aevil"}


def test_a_session_ends_with_a_new_password_of_its_user_alone(make_dashboard: Make, users_file: Path) -> None:
    app = make_dashboard(access=SignIn(users_file))
    anna, ben = app.test_client(), app.test_client()
    sign_in(anna, "anna@shop", "correct horse")
    sign_in(ben, "ben", "battery staple")
    users.write(users_file, "ben", users.hash_password("another"), "read")
    assert anna.get("/").status_code == 200
    assert ben.get("/").status_code == 303


def test_a_session_ends_with_other_rights_of_its_user_alone(make_dashboard: Make, users_file: Path) -> None:
    app = make_dashboard(access=SignIn(users_file))
    anna, ben = app.test_client(), app.test_client()
    sign_in(anna, "anna@shop", "correct horse")
    sign_in(ben, "ben", "battery staple")
    users_file.write_text(users_file.read_text().replace(":read", ":job.retry"))
    assert anna.get("/").status_code == 200
    assert ben.get("/").status_code == 303


def stolen(app: Flask, client: FlaskClient) -> FlaskClient:
    """Return a client that has the cookie of another one."""
    cookie, other = client.get_cookie("qworker_session"), app.test_client()
    assert cookie is not None
    other.set_cookie("qworker_session", cookie.value)
    return other


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(make_dashboard: Make, users_file: Path) -> None:
    app = make_dashboard(access=SignIn(users_file))
    client, elsewhere = app.test_client(), app.test_client()
    sign_in(client, "ben", "battery staple")
    sign_in(elsewhere, "ben", "battery staple")
    thief = stolen(app, client)
    assert thief.get("/").status_code == 200

    client.post("/sign-out", headers=SAME_ORIGIN)

    assert thief.get("/").status_code == 303
    assert elsewhere.get("/").status_code == 200
    # Another process, or one after a restart, knows it as well.
    other = make_dashboard(access=SignIn(users_file))
    assert stolen(other, thief).get("/").status_code == 303
    assert stolen(other, elsewhere).get("/").status_code == 200
    assert stat.S_IMODE(users_file.with_name("users.ended").stat().st_mode) == 0o600


def test_a_session_that_cannot_be_ended_says_so(make_dashboard: Make, users_file: Path) -> None:
    client = make_dashboard(access=SignIn(users_file)).test_client()
    sign_in(client, "ben", "battery staple")
    users_file.with_name("users.ended").mkdir()
    answer = client.post("/sign-out", headers=SAME_ORIGIN)
    assert answer.status_code == 500
    assert "you are still signed in" in answer.get_data(as_text=True)
    assert client.get_cookie("qworker_session") is not None


def test_sessions_that_are_over_do_not_fill_the_disk(make_dashboard: Make, users_file: Path) -> None:
    ended = users_file.with_name("users.ended")
    ended.write_text(f"{'a' * 32} 1\n" * (LARGE // 35 + 1) + f"{'b' * 32} 99999999999\n")
    client = make_dashboard(access=SignIn(users_file)).test_client()
    sign_in(client, "ben", "battery staple")
    client.post("/sign-out", headers=SAME_ORIGIN)
    kept = ended.read_text().splitlines()
    assert kept[0].startswith("b" * 32)
    assert len(kept) == 2


def test_a_cookie_that_was_made_by_hand_is_refused(make_dashboard: Make, users_file: Path) -> None:
    app = make_dashboard(access=SignIn(users_file))
    client = app.test_client()
    sign_in(client, "ben", "battery staple")
    cookie = client.get_cookie("qworker_session")
    assert cookie is not None
    for value in (cookie.value.replace("ben|", "anna@shop|"), f"ben|{'x' * 3_000}", "ben", "|", "", "ben|a.b.c"):
        other = app.test_client()
        other.set_cookie("qworker_session", value)
        assert other.get("/").status_code == 303, value


def test_wrong_passwords_are_slowed_down(make_dashboard: Make, users_file: Path) -> None:
    client = make_dashboard(access=SignIn(users_file)).test_client()
    for _ in range(MAX_WRONG):
        assert sign_in(client, "ben", "wrong").status_code == 401
    assert sign_in(client, "ben", "battery staple").status_code == 429
    # Others behind the same proxy sign in.
    assert sign_in(client, "anna@shop", "correct horse").status_code == 303


def test_wrong_passwords_are_counted_by_user_and_by_address() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    throttle.right("ben", "home")
    for number in range(MAX_OF_USER):
        assert throttle.allows("ben", f"zombie {number}")
        throttle.wrong("ben", f"zombie {number}")
    assert not throttle.allows("ben", "another zombie")
    # Who has signed in from there before is not locked out by others.
    assert throttle.allows("ben", "home")
    for number in range(MAX_OF_ADDRESS):
        assert throttle.allows(f"name {number}", "proxy")
        throttle.wrong(f"name {number}", "proxy")
    assert not throttle.allows("anna", "proxy")
    assert throttle.allows("anna", "home")
    now[0] = PERIOD
    assert throttle.allows("ben", "another zombie")
    assert throttle.allows("anna", "proxy")
    for number in range(2 * MAX_KNOWN):
        throttle.wrong(f"name {number}", f"address {number}")
        throttle.right(f"name {number}", "x")
    assert len(throttle._wrong) == len(throttle._signed_in) == MAX_KNOWN


def test_the_form_of_another_site_signs_nobody_in(make_dashboard: Make, users_file: Path) -> None:
    client = make_dashboard(access=SignIn(users_file)).test_client()
    form = {"name": "ben", "password": "battery staple"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        assert client.post("/sign-in", data=form, headers=headers).status_code == 403
    assert client.post("/sign-in", data=form, headers={"Origin": "http://localhost"}).status_code == 303


def test_a_file_that_others_can_read_is_refused(users_file: Path) -> None:
    assert stat.S_IMODE(users_file.stat().st_mode) == 0o600
    assert "correct horse" not in users_file.read_text()
    users_file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SignIn(users_file)


@pytest.mark.parametrize("line", ["ben", "ben:hash", "ben:hash:fly to the moon", "ben:a:b:c"])
def test_a_malformed_line_is_named(users_file: Path, line: str) -> None:
    users_file.write_text(f"# ours\n\n{line}\n")
    with pytest.raises(ConfigurationError, match="line 3"):
        users.users(users_file)


@pytest.mark.parametrize("hashed", ["", "scrypt$$", "plain$x$y", "md5$aa$bb", "scrypt$AAAA$%%%"])
def test_a_malformed_hash_lets_nobody_in(hashed: str) -> None:
    assert not users.check_password(users.User("ben", hashed, ALL), "")
    assert not users.check_password(None, "")


def test_a_token_is_as_good_as_its_rights(make_dashboard: Make, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token, hashed = users.new_token()
    users.write(path, "monitoring", hashed, "read")
    client = make_dashboard(access=FirstOf(users.tokens(path))).test_client()
    assert client.get("/overview.json", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    for wrong in (
        "",
        "Bearer",
        "Bearer qw_",
        f"Basic {token}",
        f"Bearer {token}x",
        f"Bearer {hashed}",
        "Bearer " + "x" * 9_999,
    ):
        answer = client.get("/overview.json", headers={"Authorization": wrong})
        assert answer.status_code == 401
        assert "Bearer TOKEN" in answer.get_data(as_text=True)


def test_a_header_counts_from_the_proxy_alone(make_dashboard: Make) -> None:
    trust = proxies.trust_header("X-Forwarded-User", ["10.0.0.0/8", "::1/128"], READ)
    client = make_dashboard(access=trust).test_client()
    for address, status in (("10.1.2.3", 200), ("::1", 200), ("::ffff:10.1.2.3", 200), ("192.0.2.1", 401), ("", 401)):
        answer = client.get("/", headers={"X-Forwarded-User": "anna"}, environ_overrides={"REMOTE_ADDR": address})
        assert answer.status_code == status, address
    assert client.get("/", environ_overrides={"REMOTE_ADDR": "10.1.2.3"}).status_code == 401
    with pytest.raises(ValueError, match="networks"):
        proxies.trust_header("X-User", [])
    with pytest.raises(ValueError, match="not the name"):
        proxies.trust_header("X User", ["::1/128"])


@pytest.mark.parametrize(("peer", "address", "scheme", "script"), [
    ("10.0.0.1", "192.0.2.9", "https", "/ops"), ("192.0.2.1", "192.0.2.1", "http", ""),
])  # fmt: skip
def test_forwarded_headers_count_from_the_proxy_alone(peer: str, address: str, scheme: str, script: str) -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.update(environ)
        return []

    environ = {
        "REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "PATH_INFO": "/ops/jobs", "SCRIPT_NAME": "",
        "HTTP_X_FORWARDED_FOR": "203.0.113.7, 192.0.2.9", "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_PREFIX": "/ops",
    }  # fmt: skip
    proxies.Forwarded(app, proxies.networks(["10.0.0.0/8"]))(environ, lambda *_: None)
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["SCRIPT_NAME"]) == (address, scheme, script)
    assert seen["PATH_INFO"] == ("/jobs" if script else "/ops/jobs")
    assert not [name for name in seen if name.startswith("HTTP_X_FORWARDED")]


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("/jobs", "/jobs", "/jobs"), ("/jobs", "/jobs/7", "/jobs/7"), ("/jobs", "/", "/"),
        ("/jobs", "/jobs/all", "/jobs/all"),
        ("/jobs", "/jobs/queues", "/queues"), ("/op", "/operations", "/operations"), ("/ops", "/ops/jobs", "/jobs"),
        ("/ops", "/ops", "/"), ("/ops", "/jobs", "/jobs"),
    ],
)  # fmt: skip
def test_a_prefix_may_be_the_name_of_a_page(dashboard: Flask, prefix: str, path: str, expected: str) -> None:
    environ = {"REMOTE_ADDR": "10.0.0.1", "PATH_INFO": path, "HTTP_X_FORWARDED_PREFIX": prefix}
    pages = dashboard.url_map.bind("localhost")
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], _start: Any) -> list[bytes]:
        seen.update(environ)
        return []

    trusted = proxies.networks(["10.0.0.0/8"])
    proxies.Forwarded(app, trusted, lambda path: bool(pages.allowed_methods(path)))(environ, lambda *_: None)

    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (prefix, expected)


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("127.0.0.1:8090", 200), ("[::1]:8090", 200), ("evil.example", 421),
    ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421), ("[", 421),
])  # fmt: skip
def test_no_other_name_leads_to_a_private_dashboard(make_dashboard: Make, host: str, status: int) -> None:
    client = make_dashboard(allowed_hosts=LOOPBACK).test_client()
    assert client.get("/", headers={"Host": host}).status_code in {status, 400 if status != 200 else 200}
    assert host_name("LOCALHOST:80") == "localhost"


@pytest.mark.parametrize(
    "host", ["x" * 64, "a..b", "x" * 5_000, "-", "[", "a b", "a@b", "\xe9", "127.0.0.1:8090:1", ""]
)
@pytest.mark.parametrize("allowed", [None, LOOPBACK])
def test_a_name_that_no_server_can_have_is_an_answer_and_no_event(
    make_dashboard: Make, caplog: pytest.LogCaptureFixture, host: str, allowed: frozenset[str] | None
) -> None:
    client = make_dashboard(allowed_hosts=allowed).test_client()
    for path in ("/", "/jobs.json", "/nothing", "/static/qworker.css", "/jobs?region=list"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code in ({400, 421} if allowed else {200, 400, 404}), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.post("/queues/pause", data={"name": "mail"}, headers={"Host": host}).status_code in {400, 403, 421}
    assert caplog.records == []


@pytest.mark.parametrize(("host", "private"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
    ("192.0.2.1", False), ("localhost.example", False), ("", False),
])  # fmt: skip
def test_only_loopback_is_private(host: str, private: bool) -> None:
    assert server.is_loopback(host) is private
    if not private:
        with pytest.raises(ConfigurationError, match="open to everybody"):
            server.check_address(host, authenticated=False)
    server.check_address(host, authenticated=True)


def test_rights_have_names() -> None:
    assert rights_of("all") == ALL
    assert rights_of("read") == READ
    assert rights_of("job.retry, queue") == READ | {"job.retry", "queue"}
    assert rights_of("") == frozenset()
    for wrong in ("job retry", "*", "job.retry;all", "ALL!"):
        with pytest.raises(ValueError, match="is not a right"):
            rights_of(wrong)
    assert not Access("x", rights_of("")).may("view")
