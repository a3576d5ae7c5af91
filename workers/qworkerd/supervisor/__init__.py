"""The process that forks, monitors, kills and replaces the other processes of a node."""
