"""Integrations with frameworks; each imports its framework, and is imported by its users only."""
