"""What a node imports: `qworker --app qworker.contrib.flask.node:app`, with the Flask application in $FLASK_APP."""

from qworker.contrib.flask.extension import NAME, Qworker, State
from qworker.contrib.flask.loading import load_flask
from qworker.errors import ConfigurationError


def __getattr__(name: str) -> Qworker:
    """Load the Flask application, and return its Qworker."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = load_flask()
    state = app.extensions.get(NAME)
    if not isinstance(state, State):
        raise ConfigurationError(
            f"the Flask application {app.name!r} has no Qworker: call init_app(app) when the application is created"
        )
    return state.queue
