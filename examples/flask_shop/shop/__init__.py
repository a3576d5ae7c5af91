"""A shop whose slow work is done by jobs; README.md has the commands."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from shop import commands, jobs, web
from shop.extensions import db, queue

__all__ = ["create_app", "jobs"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application. Tests pass a configuration of their own."""
    app = Flask(__name__)
    url = os.environ.get("DATABASE_URL", "postgresql:///shop")
    app.config.from_mapping(
        # psycopg 3: that of the node, and of the tests that run jobs in their own transaction.
        SQLALCHEMY_DATABASE_URI=url.replace("postgresql://", "postgresql+psycopg://", 1),
        # A worker runs for days, and a connection may not live as long.
        SQLALCHEMY_ENGINE_OPTIONS={"pool_pre_ping": True},
    )
    app.config.from_mapping(config or {})
    db.init_app(app)
    queue.init_app(app)
    app.register_blueprint(web.pages)
    app.cli.add_command(commands.create_tables)
    app.cli.add_command(commands.open_shop)
    return app
