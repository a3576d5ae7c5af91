"""Serve the dashboard; add users and tokens to its files."""

import sys
from pathlib import Path
from typing import Any

import click

from qworker.db.dsn import display
from qworker.errors import ConfigurationError
from qworkerd import log
from qworkerd.cli.options import SUPPLIED, app_optional, options, refuse, refuse_before
from qworkerd.cli.tables import safe_echo
from qworkerd.config.target import Target

#: The settings of the log.
LOGGED = ("log_level", "log_format")

users_option = click.option(
    "--users-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Users who sign in with a password: see `qworker web passwd`.",
)  # fmt: skip
tokens_option = click.option(
    "--tokens-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Tokens of programs: see `qworker web token`.",
)  # fmt: skip
rights_option = click.option(
    "--rights", metavar="LIST", default="all", show_default=True,
    help="all, read, or actions: job.retry,queue.",
)  # fmt: skip


@click.group(invoke_without_command=True, short_help="Serve the dashboard.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to serve on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8090, show_default=True, metavar="N", help="The port.")
@click.option(
    "--unix-socket", type=click.Path(path_type=Path), metavar="FILE", help="Serve on a socket of this user instead."
)
@click.option("--read-only", is_flag=True, help="Nobody may change anything.")
@users_option
@tokens_option
@click.option("--trust-header", metavar="NAME", help="The header in which a proxy names the user; needs --trust-cidr.")
@click.option(
    "--trust-cidr", multiple=True, metavar="CIDR", help="The network of the proxy, as in 10.0.0.0/8; repeatable."
)
@rights_option
@click.option(
    "--allowed-host", multiple=True, metavar="NAME", help="A name under which the dashboard is reached; repeatable."
)
@click.option(
    "--read-dsn", envvar="QWORKER_WEB_DSN", show_envvar=True, metavar="DSN",
    help="The connection of pages: a viewer's, or to a standby.",
)  # fmt: skip
@options("app", "schema", *LOGGED)
@click.pass_context
def web(context: click.Context, /, **given: Any) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C, to this machine alone unless users are authenticated.

    Without an application the pages show the database; with one they know its tasks, too. Requires an extra:
    pip install 'pgqworker[web]'.

    Exits with status 78 if other machines would reach the dashboard without authentication.
    """
    if context.invoked_subcommand is not None:
        refuse_before(context, "an option of the server", except_for=SUPPLIED)
        return
    if given["unix_socket"] is not None:
        refuse("host", "port", why="has no effect with --unix-socket: leave out one of them")
    if given["trust_header"] is None and (given["users_file"] or given["tokens_file"]):
        refuse("rights", why="has no effect: users and tokens have the rights that are stored in their file")
    context.invoke(_serve, **{name: value for name, value in given.items() if name not in LOGGED})


@app_optional
def _serve(
    target: Target, *, host: str, port: int, unix_socket: Path | None, read_only: bool, users_file: Path | None,
    tokens_file: Path | None, trust_header: str | None, trust_cidr: tuple[str, ...], rights: str,
    allowed_host: tuple[str, ...], read_dsn: str | None,
) -> None:  # fmt: skip
    from qworkerd.web import server

    server.require()
    # The application has been imported, and may have configured logging itself.
    log.configure(target.settings.log_format, target.settings.log_level)
    log.bind_process(role="web")
    from qworkerd.web import access, create_app, proxies, users
    from qworkerd.web.security import LOOPBACK
    from qworkerd.web.signin import SignIn

    functions: list[access.Authorize] = []
    try:
        networks = proxies.networks(trust_cidr)
        if tokens_file is not None:
            functions.append(users.tokens(tokens_file))
        if trust_header is not None:
            functions.append(proxies.trust_header(trust_header, trust_cidr, access.rights_of(rights)))
        if users_file is not None:
            functions.append(SignIn(users_file))
        elif not functions:
            functions.append(access.everybody(actions=access.rights_of(rights)))
            if unix_socket is None:
                server.check_address(host, authenticated=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    names = {*LOOPBACK, *allowed_host}
    private = unix_socket is None and server.is_loopback(host)
    app = create_app(
        target.app or target.dsn, access=access.FirstOf(*functions), schema=target.schema, read_dsn=read_dsn,
        read_only=read_only, allowed_hosts=names if private or allowed_host else None,
    )  # fmt: skip

    def ready(where: str) -> None:
        mode = ", read-only" if read_only else ""
        safe_echo(f"the dashboard of {display(target.dsn)}, schema {target.schema}{mode}, is at {where}")
        safe_echo("stop it with Ctrl-C or SIGTERM")
        sys.stdout.flush()

    def is_page(path: str) -> bool:
        return bool(app.url_map.bind("localhost").allowed_methods(path))

    server.serve(proxies.Forwarded(app, networks, is_page), host=host, port=port, unix_socket=unix_socket, ready=ready)


@web.command(short_help="Add a user, or set a password.")
@click.argument("name", metavar="NAME")
@click.option(
    "--users-file", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file."
)
@rights_option
def passwd(name: str, users_file: Path, rights: str) -> None:
    """Ask for the password of a user, and write its hash and the rights to the file.

    If the input is not a terminal, its first line is the password. The sessions of the user end.
    """
    from qworkerd.web import users

    try:
        if sys.stdin.isatty():
            password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        else:
            password = sys.stdin.readline().rstrip("\n")
        users.write(users_file, name, users.hash_password(password), rights)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise ConfigurationError(f"{users_file} cannot be written: {error.strerror}") from None
    safe_echo(f"user {name!r} has the rights {rights} in {users_file}")


@web.command(short_help="Make a token for a program.")
@click.argument("name", metavar="NAME")
@click.option(
    "--tokens-file", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file."
)
@click.option("--rights", metavar="LIST", default="read", show_default=True, help="all, read, or actions: job.retry.")
def token(name: str, tokens_file: Path, rights: str) -> None:
    """Print a new token, and write its hash to the file; an older token of this name is not valid any more.

    A program sends it with each request: Authorization: Bearer TOKEN.
    """
    from qworkerd.web import users

    made, hashed = users.new_token()
    try:
        users.write(tokens_file, name, hashed, rights)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise ConfigurationError(f"{tokens_file} cannot be written: {error.strerror}") from None
    click.echo(made)
