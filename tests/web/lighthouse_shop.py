"""The shop's application, for `qworker --app`; the database is that of QWORKER_DSN."""

import os

from tests.web.shop import shop

app = shop(os.environ["QWORKER_DSN"])
