"""A shop whose slow work is done by jobs; README.md has the commands."""
