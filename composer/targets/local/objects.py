"""A folder of an object store, `s3://BUCKET/FOLDER`, by fsspec and s3fs.

The mirror reads the library through here, and tickets lie in such a folder. s3fs finds credentials,
region and endpoint itself: in the environment, or in the files and roles that AWS's own tools use.
Nothing of them is read, kept or printed here.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from composer.errors import CredentialsError, TargetError, Unreachable, UsageError
from composer.files.atomic import no_link
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEME = "s3://"
PART = 16 * 1024 * 1024  # bytes of one request; S3 takes parts of 5 MB or more
_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[\w.=+@-][\w.=+@ -]*)*/?")
_USER = re.compile(r"//[^/\s@]*@")  # in an endpoint's URL
# Listings as they are now, and connections of our own: others use s3fs on the workers too.
_OPTIONS = {"use_listings_cache": False, "skip_instance_cache": True}
_HINT = "where s3fs finds credentials, region and endpoint: docs/cluster.md"


@dataclass(frozen=True, slots=True)
class Entry:
    """What an object store says of an object; the ETag differs once the object was replaced."""

    size: int
    etag: str
    modified: int  # nanoseconds since 1970


class Objects:
    """The objects below a folder, by their place in it, with `/`. Thread-safe.

    All methods raise `CredentialsError` where access is denied, `Unreachable` without an answer,
    and `TargetError` for any other error of the store.
    """

    def __init__(self, url: str, *, what: str = "the library") -> None:
        """`what` names it in words. Raises `UsageError` for another URL, and without s3fs."""
        if not _URL.fullmatch(url):  # which is not shown: some write credentials there
            raise UsageError(
                f"{what} is not the URL of a folder in an object store",
                hint="use s3://BUCKET/FOLDER, without credentials (docs/cluster.md)",
            )
        try:
            import_module("s3fs")
        except ModuleNotFoundError as missing:
            raise UsageError(
                f"s3:// needs {missing.name}", hint="pip install 'lora-compose[s3]'"
            ) from missing
        self.url = url.rstrip("/")

    @property
    def _root(self) -> str:
        return self.url.removeprefix(SCHEME)

    @cached_property
    def _store(self) -> Any:
        return import_module("fsspec").filesystem("s3", **_OPTIONS)

    def find(self, beginning: str = "") -> dict[str, Entry]:
        """All objects, or those whose places, without a `/`, begin so. Empty if there are none.

        Raises `TargetError` if there is no such bucket.
        """
        with self._in_bucket(), self._translated():
            found = self._store.find(self._root, prefix=beginning, detail=True)
        below = f"{self._root}/"
        return {
            key.removeprefix(below): _entry(info)
            for key, info in found.items()
            if key.startswith(below) and info["type"] == "file"
        }

    def entry(self, place: str) -> Entry | None:
        """What there is at this place."""
        with suppress(FileNotFoundError), self._translated():
            info = self._store.info(self._key(place))
            return _entry(info) if info["type"] == "file" else None
        return None

    def read(self, place: str) -> bytes | None:
        """A small object; None without one."""
        with suppress(FileNotFoundError), self._translated():
            return bytes(self._store.cat_file(self._key(place)))
        return None

    def write(self, place: str, data: bytes) -> None:
        """Put a small object there."""
        with self._in_bucket(), self._translated():
            self._store.pipe_file(self._key(place), data)

    def remove(self, beginning: str) -> None:
        """Remove the objects whose places, without a `/`, begin so."""
        for place in self.find(beginning):
            with suppress(FileNotFoundError), self._translated():
                self._store.rm_file(self._key(place))

    def download(
        self, place: str, to: Path, expected: Entry | None, seen: Callable[[], None]
    ) -> None:
        """Fill the file `to`, which is there, with the object, as it was when this began.

        `seen` is called after each part, and may raise to end it. Raises `TargetError` if it is
        not the one that was `expected`, or is replaced meanwhile, and `OSError` of the file.
        """
        with self._unchanged(place), self._translated():
            source = self._store.open(self._key(place), "rb", block_size=PART, cache_type="none")
        with source, open(to, "r+b", opener=no_link) as file:
            if expected and (source.details["size"], source.details["ETag"]) != (
                expected.size,
                expected.etag,
            ):
                raise self._changed(place)
            while True:
                with self._unchanged(place), self._translated():
                    data = source.read(PART)
                if not data:
                    break
                file.write(data)
                seen()

    def upload(self, source: Path, place: str, seen: Callable[[], None]) -> None:
        """Put the file there; nobody sees the object before it is whole. For `seen` see above."""
        with open(source, "rb", opener=no_link) as file:
            out = self._store.open(self._key(place), "wb", block_size=PART, autocommit=False)
            try:
                while data := file.read(PART):
                    with self._in_bucket(), self._translated():
                        out.write(data)
                    seen()
                with self._in_bucket(), self._translated():
                    out.close()
                    out.commit()
            except BaseException:
                with suppress(Exception):  # the store may be away
                    out.discard()
                raise

    def _key(self, place: str) -> str:
        return f"{self._root}/{place}"

    @contextmanager
    def _in_bucket(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise TargetError(f"there is no bucket for {self.url}", hint=_HINT) from None

    @contextmanager
    def _unchanged(self, place: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._changed(place) from None

    def _changed(self, place: str) -> TargetError:
        return TargetError(
            f"{self.url}/{visible(place)} was changed while it was read",
            hint="run the same command again once it no longer changes",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of fsspec and of what it is built on, in our words, but `FileNotFoundError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise CredentialsError(
                f"access to {self.url} is denied: {_words(error)}", hint=_HINT
            ) from error
        except Exception as error:
            if type(error).__name__ == "FileExpired":  # of s3fs: the ETag is another one
                raise FileNotFoundError(str(error)) from error
            raise self._error(error) from error

    def _error(self, error: Exception) -> TargetError:
        """s3fs lets errors of botocore pass, which has a class for each of hundreds of reasons."""
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        if "Credential" in names or "Profile" in names:
            return CredentialsError(f"no access to {self.url}: {_words(error)}", hint=_HINT)
        lost = re.search("Connection|Timeout|HTTPClientError", names)
        kind = Unreachable if lost else TargetError
        return kind(f"{self.url} can't be used: {_words(error)}", hint=_HINT)


def _entry(info: dict[str, Any]) -> Entry:
    at = info["LastModified"].timestamp()
    return Entry(int(info["size"]), str(info["ETag"]), round(at) * 1_000_000_000)


def _words(error: Exception) -> str:
    return shorten(visible(_USER.sub("//", str(error) or type(error).__name__)), 200)
