"""The settings, the application that they name, and the rules that they set for jobs."""
