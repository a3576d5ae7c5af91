"""Whether a terminal is to be written to with colors."""

import os


def terminal_has_colors() -> bool:
    """Return whether the terminal has colors, and its user has not turned them off (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")
