"""The extension for Flask: `Qworker`, an App that takes its database from the configuration of a Flask application."""

from qworker.contrib.flask.extension import Qworker

__all__ = ["Qworker"]
