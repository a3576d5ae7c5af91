"""The extensions, which exist before any application does."""

from flask_sqlalchemy import SQLAlchemy

from qworker.contrib.flask import Qworker

db = SQLAlchemy()
#: Jobs join the transaction of the session, and exist when it is committed.
queue = Qworker(session=lambda: db.session)
