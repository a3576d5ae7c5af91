"""Tests of the extension for Flask."""
