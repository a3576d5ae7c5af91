"""What became of a job: the outcome, how it is written to the database, who is told."""
