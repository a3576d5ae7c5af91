"""Outcomes of jobs: the types, the statements that write them, and the reports of failures."""
