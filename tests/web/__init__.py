"""Tests of the dashboard: through WSGI, and in a real browser."""
