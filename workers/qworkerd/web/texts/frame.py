"""What each page has around its content: navigation, settings, keys, lists and their pages, what scripts say."""

SKIP = "Skip to the content"
RELATIVE = "relative"
LOCAL = "local"
UTC = "UTC"
AUTO = "auto"
OFF = "off"
SYSTEM = "system"
LIGHT = "light"
DARK = "dark"
SIGN_OUT = "Sign out"
KEYS = "Keys"
MOVE_TO_ROW = "Next and previous row"
OPEN_THE_ROW = "Open the row"
SELECT_THE_ROW = "Select the row"
REFRESH_NOW = "Refresh now"
THIS_HELP = "This help"
CLOSE = "Close"
PAGES = "Pages"
TIMES = "Times"
REFRESH = "Refresh"
THEME = "Theme"
COPY = "Copy"
JOBS_THEN = "Jobs enqueued then"
OLDER = "Older"
JSON = "JSON"
CSV = "CSV"
FIND = "Find"
ESTIMATED = "estimated from a sample"
REMOVE_THIS_TIME = "Remove this time"
PAGES_OF_THE_LIST = "Pages of the list"
FIND_BY_NAME = "Find by name"
PART_OF_A_NAME = "Part of a name"
EXAMPLE_NAME = "part of a name"
REASON = "Reason"
PAUSE = "Pause"

#: The language of these texts, for browsers and for how scripts write numbers and times.
LANGUAGE = "en"
SIGNED_IN = "signed in as {user}"
KEYS_ARE = "Keys:"
INTERVAL = "{begin} to {end}"

#: What scripts say. While a page is not refreshed: why, then since when.
DATABASE_UNAVAILABLE = "The database does not answer."
SERVER_UNAVAILABLE = "The server does not answer."
SERVER_FAILED = "The server answered with status {status}."
AS_OF = "This page is as of {time}, and is refreshed as soon as possible."
#: Before a time or a duration: when something is due, since when it goes on, or for how long.
DUE, SINCE, FOR = "due {time}", "since {time}", "for {time}"
COPIED = "Copied"


def all_names(number: int) -> str:
    """Name the link to a list that is not narrowed."""
    return f"All {number:,}"


def not_shown(number: int) -> str:
    """Say how many lines of a list are not on the page."""
    return f"{number:,} more are not shown: find them by a part of their name, or in the CSV."
