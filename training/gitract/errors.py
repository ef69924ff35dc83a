"""The exceptions of the project: bad input, and a job that the user ended."""

__all__ = ["Cancelled", "GitractError", "InputError", "Stopped"]


class GitractError(Exception):
    """Base of every error that the project raises on purpose.

    The message is one sentence for the user: what was wrong, with the value, and
    what to do. A window or a command line shows it as it stands, without a traceback.
    """


class InputError(GitractError):
    """A file, a folder, a layer or an option that cannot be used as it is."""


class Cancelled(Exception):  # noqa: N818 - not an error: the user asked for it
    """Raised by a job's ``report`` to end the job and leave nothing behind."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """Raised by a training job's ``report`` to end it early and keep the best so far."""
