"""Errors that end a run, each reported in one line."""

import difflib
import errno
from collections.abc import Iterable

#: Error numbers of a disk that cannot take more: the run failed, and resumes once there is space.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: Error numbers of permissions and of files in the way: the user changes that or chooses another
#: folder.
NOT_ALLOWED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip


class UserError(Exception):
    """A mistake of the user.

    The message is one line with the thing that is wrong and the remedy. The command line prints it
    without a traceback and exits with code 2.
    """


class DataError(UserError):
    """A data file that cannot be used; `config.data.on_error=skip` leaves it out."""


class RunError(Exception):
    """A failure of a correct command, such as a loss that is not finite or a full disk.

    The message is one line. The command line prints it without a traceback and exits with code 1.
    """


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Returns ` did you mean '<prefix>...'?` with the most similar name; "" if none is similar.

    Upper and lower case count as the same.
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" did you mean '{prefix}{by_lower[close[0]]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; its type if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
