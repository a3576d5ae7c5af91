"""Where the dashboard reads and writes: a pool of read-only connections, and another one for actions."""

from collections.abc import Callable

from qworker.admin import Admin
from qworker.ambient import Ambient
from qworker.app import App
from qworker.cluster import Cluster
from qworker.db.pool import Pool
from qworker.db.statements import DEFAULT_SCHEMA
from qworker.search import Search

#: Limits of a statement (seconds).
STATEMENT_TIMEOUT, LOCK_TIMEOUT, ACTION_TIMEOUT = 2.0, 0.2, 10.0
#: Connections for pages and for actions, and how long a request waits for one (seconds).
READERS, WRITERS, POOL_TIMEOUT = 4, 2, 2.0

Dsn = str | Callable[[], str] | None
#: What a dashboard shows: an App or a connection string; by default $QWORKER_DSN and so on.
Target = App | str | None


class Source:
    """One schema of one database, and the application whose jobs it holds, if the dashboard has it."""

    def __init__(self, target: Target, *, schema: str | None = None, dsn: Dsn = None, read_dsn: Dsn = None) -> None:
        """dsn: instead of the App's. read_dsn: the connection of pages, as a viewer or to a standby."""
        #: The application, which knows its tasks; None if only the database is known.
        self.app = target if isinstance(target, App) else None
        #: The schema.
        self.schema = schema or (self.app.schema if self.app else DEFAULT_SCHEMA)
        #: The DSN or function of actions.
        self.dsn: Dsn = dsn or (target.dsn if isinstance(target, App) else target)
        #: Connections for reading. Each transaction is read-only and each statement bounded.
        self.readers = Pool(
            read_dsn or self.dsn, self.schema, size=READERS, wait_timeout=POOL_TIMEOUT, writable=False,
            statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT,
        )  # fmt: skip
        #: Connections for actions.
        self.writers = Pool(
            self.dsn, self.schema, size=WRITERS, wait_timeout=POOL_TIMEOUT,
            statement_timeout=ACTION_TIMEOUT, lock_timeout=STATEMENT_TIMEOUT,
        )  # fmt: skip
        # Neither joins a transaction of the caller: a page is not part of it.
        #: Reads jobs, queues and nodes.
        self.admin = Admin(self.readers, Ambient(self.readers))
        #: Searches for jobs, on connections of its own.
        self.search = Search(self.readers, self.admin)
        #: Reads the state of the cluster for metrics.
        self.cluster = Cluster(self.schema)
        #: Does what users ask for.
        self.acting = Admin(self.writers, Ambient(self.writers))

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.search.close()
        self.readers.close()
        self.writers.close()
