"""Settings, the application they name, and what applies to a job."""
