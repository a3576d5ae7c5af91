"""The extension: tasks that are declared before any Flask application exists, and run in a context of one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

import flask

from qworker.app import App
from qworker.codec import CodecFactory
from qworker.context import RunningJob
from qworker.contrib.flask import uncommitted
from qworker.contrib.flask.database import FlaskPool, dsn
from qworker.contrib.flask.loading import load_flask
from qworker.contrib.flask.uncommitted import WatchingEnqueuer
from qworker.db.connection import resolve_dsn
from qworker.db.pool import Pool
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.errors import ConfigurationError
from qworker.middleware import ProcessHook
from qworker.task import EndHook, Enqueuing, Hook

H = TypeVar("H", bound=Hook)
W = TypeVar("W", bound=ProcessHook)
E = TypeVar("E", bound=EndHook)

#: The key in `app.extensions`.
NAME = "qworker"


@dataclass(frozen=True)
class State:
    """What a Flask application holds in `app.extensions["qworker"]`."""

    #: The extension that was initialized with the application.
    queue: "Qworker"
    #: The extension's connections to the application's database.
    pool: Pool


class Qworker(App):
    """An App for Flask. Tasks are declared on it as on an App, with or without a Flask application.

    Call `init_app` for each Flask application, or pass one. Jobs are enqueued into the database of the current one: see
    `qworker.contrib.flask.database.dsn`. Handlers and hooks run in a new application context each, and so have a new
    session of Flask-SQLAlchemy. session and typed: see App; session is, for example, `lambda: db.session`.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        session: Callable[[], Any] | None = None,
        typed: bool | CodecFactory = False,
    ) -> None:
        self._apps: WeakSet[flask.Flask] = WeakSet()
        self._loaded: flask.Flask | None = None
        super().__init__(self._resolve_dsn, schema=schema, session=session, typed=typed)
        self.middleware(self._in_context)
        if app is not None:
            self.init_app(app)

    def _make_pool(self) -> Pool:
        return FlaskPool(lambda: self._state().pool, self._resolve_dsn, self.schema)

    def _make_enqueuer(self) -> Enqueuing:
        return WatchingEnqueuer(self.pool, self.admin, self.ambient)

    def init_app(self, app: flask.Flask) -> None:
        """Use a Flask application's database inside of its contexts."""
        if NAME in app.extensions:
            raise ConfigurationError(f"a Qworker was initialized with the Flask application {app.name!r} already")
        pool: FlaskPool = self.pool  # type: ignore[assignment]
        app.extensions[NAME] = State(self, Pool(pool.resolve, self.schema))
        self._apps.add(app)
        uncommitted.init_app(app)

    def load(self) -> None:
        """Find the Flask application of this process: the one that was made at import, or else that of $FLASK_APP."""
        if not self._apps:
            app = load_flask()
            if app not in self._apps:
                raise ConfigurationError(
                    f"the Flask application {app.name!r} was not initialized with this Qworker: call init_app(app)"
                )
            self._loaded = app
        self._loaded = self.flask_app()

    def flask_app(self) -> flask.Flask:
        """Return the current Flask application, or the only one. Raises RuntimeError if there are none or several."""
        if flask.has_app_context():
            return flask.current_app._get_current_object()  # type: ignore[attr-defined,no-any-return] # noqa: SLF001
        if self._loaded is not None:
            return self._loaded
        apps = list(self._apps)
        if len(apps) != 1:
            raise RuntimeError(
                f"Qworker is used outside of an application context, with {len(apps) or 'no'} Flask applications: "
                f"{'use `with app.app_context():`' if apps else 'call init_app(app)'}"
            )
        return apps[0]

    def close(self) -> None:
        """Close unused connections to the databases of all Flask applications; the next use opens new ones."""
        for app in list(self._apps):
            app.extensions[NAME].pool.close()

    def on_error(self, hook: H) -> H:
        """Register a hook as `App.on_error` does; it runs in an application context."""
        super().on_error(self._within_context(hook))
        return hook

    def on_end(self, hook: E) -> E:
        """Register a hook as `App.on_end` does; it runs in an application context."""
        super().on_end(self._within_context(hook))
        return hook

    def on_worker_start(self, hook: W) -> W:
        """Register a hook as `App.on_worker_start` does; it runs in an application context."""
        super().on_worker_start(self._within_context(hook))
        return hook

    def on_worker_stop(self, hook: W) -> W:
        """Register a hook as `App.on_worker_stop` does; it runs in an application context."""
        super().on_worker_stop(self._within_context(hook))
        return hook

    def _in_context(self, _job: RunningJob, call_next: Callable[[], Any]) -> Any:
        with self.flask_app().app_context():
            return call_next()

    def _within_context(self, hook: Any) -> Any:
        if not callable(hook):
            return hook  # is refused

        @functools.wraps(hook)
        def call(*args: Any) -> Any:
            with self.flask_app().app_context():
                return hook(*args)

        return call

    def _state(self) -> State:
        app = self.flask_app()
        state = app.extensions.get(NAME)
        if not isinstance(state, State) or state.queue is not self:
            raise RuntimeError(
                f"the current Flask application {app.name!r} was not initialized with this Qworker: call init_app(app)"
            )
        return state

    def _resolve_dsn(self) -> str:
        self._state()
        return dsn(self.flask_app().config) or resolve_dsn()
