"""The process that forks, watches, kills and replaces the others."""
