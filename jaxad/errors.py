"""The ways in which a run ends early, each reported in one line."""

import errno

#: Errors of the system: a disk takes no more. The run failed, and goes on once it does.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: What may not be: the user names another folder, allows it, or moves away what is in the way.
NOT_ALLOWED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip


class UserError(Exception):
    """A mistake of the user.

    The message is one line that names the thing and the remedy; the command line prints it
    without a traceback and exits with code 2.
    """


class DataError(UserError):
    """A file of the user's data that cannot be used; `config.data.on_error=skip` leaves it out."""


class RunError(Exception):
    """A run that failed for a reason of its own, such as a loss that is no longer finite.

    The message is one line; the command line prints it without a traceback and exits with code 1.
    """


def first_line(error: BaseException) -> str:
    """What a library said went wrong, in one line; the error's kind where it said nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
