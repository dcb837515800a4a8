"""Objects of a bucket (`gs://`, `s3://`), through fsspec's gcsfs and s3fs.

An object is read and written whole. Nothing is renamed or appended to, and every call ends: what a
store does not answer in time becomes a `StoreError`.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import importlib
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxad.errors import NO_ROOM, UserError, first_line

#: Scheme -> the package that fsspec needs for it, and the extra of jaxad that installs it.
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}

#: Seconds that a call may take; a transfer also gets one per MiB.
_SECONDS = 60.0

#: Objects that are transferred or deleted at the same time; two if they are large, as clients hold
#: hundreds of MiB of each in memory.
_AT_ONCE, _LARGE_BYTES = 16, 32 * 2**20


class StoreError(Exception):
    """A store that cannot be reached or fails; the message is only the reason."""


class Refused(StoreError):
    """A call that would fail again: no bucket, no credentials, or no right."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tells whether a path is a URL, such as `gs://bucket/folder`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)) is not None


class Object(NamedTuple):
    """An object: its version changes whenever it is written."""

    version: str
    size: int  # bytes
    written: float = 0.0  # time, seconds; 0 if it is not known


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of a bucket whose names begin with a common folder."""

    url: str
    limit: float = math.inf  # seconds that a request may take, if fewer than usual

    @classmethod
    def at(cls, url: str, what: str) -> "Objects":
        """Returns the objects at a URL that a user wrote; `what` is the flag or field.

        Raises:
            UserError: the URL has no bucket or is of another kind, or its package is missing.
        """
        scheme, _, path = url.partition("://")
        prefix = f"{what}: " if what else ""
        if scheme not in _PACKAGES:
            known = " or ".join(f"{name}://" for name in _PACKAGES)
            raise UserError(f"{prefix}'{url}': not a local path and not {known}; choose another.")
        parts = [part for part in path.split("/") if part]
        if not parts or ".." in parts or "." in parts:
            raise UserError(f"{prefix}'{url}': write it as {scheme}://bucket/folder.")
        package, extra = _PACKAGES[scheme]
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"{prefix}'{url}': needs the package {package}: pip install 'jaxad[{extra}]'."
            ) from error
        return cls(f"{scheme}://{'/'.join(parts)}")

    def below(self, folder: str) -> "Objects":
        """Returns the objects in a folder; "" or `.` for this one."""
        return self if folder in ("", ".") else Objects(f"{self.url}/{folder}", self.limit)

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @functools.cached_property
    def _files(self) -> Any:
        import fsspec

        scheme = self.url.partition(":")[0]
        for name in ("gcsfs", "google.auth"):
            # They warn where there are no credentials; the first refusal says so.
            logging.getLogger(name).setLevel(logging.ERROR)
        with _translated():
            # A cached listing would hide what other processes write.
            return fsspec.filesystem(scheme, use_listings_cache=False)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a coroutine of the file system, with a limit on its time."""
        import fsspec.asyn

        files = self._files
        with _translated():
            return fsspec.asyn.sync(
                files.loop, getattr(files, method), *arguments,
                timeout=min(_SECONDS, self.limit), **options,
            )  # fmt: skip

    def find(self) -> dict[str, Object]:
        """Returns every object by its name below the URL; "" for an object at the URL itself."""
        try:
            found = self._call("_find", self.url, withdirs=False, detail=True)
        except FileNotFoundError as error:
            raise Refused("there is no such bucket") from error
        if not found:
            self._check_bucket()
        root = self.url.partition("://")[2]
        names = {path.removeprefix(root).lstrip("/"): path for path in found}
        # A name that ends with a slash is the mark of an empty folder.
        return {
            name: Object(
                _version(found[path]), int(found[path].get("size") or 0), _written(found[path])
            )
            for name, path in names.items()
            if not path.endswith("/") and found[path].get("type") != "directory"
        }

    def _check_bucket(self) -> None:
        """Raises a StoreError if the bucket does not exist, for which listings are just empty."""
        bucket = self.url.partition("://")[2].partition("/")[0]
        try:
            self._call("_ls", bucket, detail=False)
        except FileNotFoundError as error:
            raise Refused("there is no such bucket") from error

    def read(self, name: str) -> bytes | None:
        """Returns the content of an object; None if there is none."""
        try:
            return self._call("_cat_file", self._address(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object."""
        try:
            self._call("_pipe_file", self._address(name), content)
        except FileNotFoundError as error:
            raise Refused("there is no such bucket") from error

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one; returns whether it was written.

        Of several processes that create the same object, one succeeds.
        """
        try:
            self._call("_pipe_file", self._address(name), content, mode="create")
        except FileExistsError:
            # The store may have answered a first try that the client repeated.
            return self.read(name) == content
        except FileNotFoundError as error:
            raise Refused("there is no such bucket") from error
        return True

    def put(self, paths: Mapping[str, Path]) -> None:
        """Uploads files, several at once, each to an object of the given name."""
        size = sum(path.stat().st_size for path in paths.values())
        missing = self._each(
            "_put_file", [(str(path), self._address(name)) for name, path in paths.items()], size
        )
        if any(missing):
            raise Refused("there is no such bucket")

    def get(self, paths: Mapping[str, Path], size: int) -> list[str]:
        """Downloads objects, several at once, to files; returns the names of those that are gone.

        `size` is the number of bytes of all, for the limit on the time.

        Raises:
            StoreError: the store fails.
            OSError: the files cannot be written.
        """
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        calls = [(self._address(name), str(path)) for name, path in paths.items()]
        try:
            missing = self._each("_get_file", calls, size)
        except OSError as error:  # of this machine's disk
            if error.filename is None:
                error.filename = str(next(iter(paths.values())).parent)
            raise
        return [name for name, is_missing in zip(paths, missing, strict=True) if is_missing]

    def delete(self, names: Sequence[str]) -> None:
        """Deletes objects, which may be gone."""
        self._each("_rm_file", [(self._address(name),) for name in names])

    def _address(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _each(self, method: str, calls: Sequence[tuple[str, ...]], size: int = 0) -> list[bool]:
        """Calls a coroutine with each of several arguments; returns which objects are missing.

        The first other error is raised when all calls have ended.
        """
        import fsspec.asyn

        function = getattr(self._files, method)

        async def call_all() -> list[Any]:
            are_large = size > len(calls) * _LARGE_BYTES
            free = asyncio.Semaphore(2 if are_large else _AT_ONCE)

            async def call(arguments: tuple[str, ...]) -> Any:
                async with free:
                    return await function(*arguments)

            return await asyncio.gather(*map(call, calls), return_exceptions=True)

        with _translated():
            limit = _SECONDS * (1 + len(calls) / _AT_ONCE) + size / 2**20
            results = fsspec.asyn.sync(self._files.loop, call_all, timeout=limit)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, FileNotFoundError):
                    raise result
        return [isinstance(result, FileNotFoundError) for result in results]


def _version(details: Mapping[str, Any]) -> str:
    """Returns what changes whenever an object is written."""
    for key in ("generation", "etag", "ETag", "LastModified", "mtime"):
        if details.get(key):
            return f"{details[key]} {details.get('size')}"
    return str(details.get("size"))


def _written(details: Mapping[str, Any]) -> float:
    """Returns when an object was written, in seconds; 0 if the store does not say."""
    for key in ("mtime", "LastModified"):
        if isinstance(time := details.get(key), datetime.datetime):
            return time.timestamp()
    return 0.0


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raises errors of a store as a StoreError, except that an object is missing or exists.

    Errors of files on this machine stay as they are.
    """
    import fsspec.exceptions

    try:
        yield
    except (FileNotFoundError, FileExistsError, StoreError):
        raise
    except (fsspec.exceptions.FSTimeoutError, TimeoutError) as error:
        raise StoreError("it does not answer") from error
    except MemoryError:
        raise
    except Exception as error:  # the clients and their HTTP libraries have types of their own
        # Clients raise errors of the system, too, but without the name of a file.
        if isinstance(error, OSError) and (error.filename or error.errno in NO_ROOM):
            raise
        raise _as_store_error(error) from error


def _as_store_error(error: Exception) -> StoreError:
    """Returns a StoreError with the reason of a client's error in a few words."""
    text, kind = first_line(error), type(error).__name__
    code = str(getattr(error, "code", "") or getattr(error, "status", ""))
    if code == "401" or kind == "NoCredentialsError" or "Anonymous caller" in text:
        return Refused(
            "there are no valid credentials: set GOOGLE_APPLICATION_CREDENTIALS or run 'gcloud "
            "auth application-default login' for gs://, set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY for s3://"
        )
    if code == "403" or isinstance(error, PermissionError) or "Forbidden" in text:
        return Refused(
            "the credentials do not allow it: they need the rights to list, read, create and "
            "delete objects"
        )
    if "Connect" in kind or "Connect" in text:
        return StoreError(f"it cannot be reached ({text[:200]})")
    return StoreError(f"{kind}: {text[:200]}")
