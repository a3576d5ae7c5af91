"""Connections that the application opens at import, which forked children must not share."""
