"""Loads the Flask application of a command or node, as Flask's own command does."""

import os
from collections.abc import Callable

import flask
from flask.cli import NoAppException, ScriptInfo

from qworker.errors import ConfigurationError

#: Returns the Flask application of the running `flask` command; None in other commands.
provided: Callable[[], flask.Flask] | None = None


def provide(load: Callable[[], flask.Flask]) -> None:
    """Set what loads the Flask application in this process."""
    global provided  # noqa: PLW0603 - a command has one application
    provided = load


def load_flask() -> flask.Flask:
    """Return the application of the `flask` command, or that of $FLASK_APP, or of wsgi.py or app.py."""
    try:
        if provided is not None:
            return provided()
        return ScriptInfo(app_import_path=os.environ.get("FLASK_APP")).load_app()
    except NoAppException as error:
        raise ConfigurationError(f"no Flask application: {' '.join(str(error).split())}") from error
