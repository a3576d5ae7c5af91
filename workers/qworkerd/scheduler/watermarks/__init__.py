"""The low watermarks, below which no job can be claimed; `docs/watermarks.md` describes them and their invariants."""
