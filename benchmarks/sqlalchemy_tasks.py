"""An application that brings SQLAlchemy and requests along, as a service does."""

import requests
import sqlalchemy.orm
from tasks import app

__all__ = ["app", "requests", "sqlalchemy"]
