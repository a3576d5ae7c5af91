"""The page where users sign in."""

SIGN_IN = "Sign in"
NAME = "Name"
PASSWORD = "Password"  # noqa: S105 - the name of the field

WRONG = "The name or the password is wrong."
THROTTLED = "too many wrong passwords; wait a minute"


def still_signed_in(path: object, why: str | None) -> str:
    """Say why a session could not be ended."""
    return (
        f"you are still signed in: {path} cannot be written ({why}), and without it the session would go on with every "
        "copy of its cookie; a new password ends it, too"
    )
