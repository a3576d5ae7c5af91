"""The dashboard: a WSGI application that shows one schema, and acts on it for users with the right to do so."""

from qworkerd.web.access import ALL, READ, Access, Redirect, everybody
from qworkerd.web.application import create_app

__all__ = ["ALL", "READ", "Access", "Redirect", "create_app", "everybody"]
