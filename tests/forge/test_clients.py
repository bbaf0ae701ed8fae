"""Archives of artifacts, which anybody may have made."""

from __future__ import annotations

import contextlib
import io
import zipfile

from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.forge.api import ForgeError
from composer.forge.clients import member


def archive(method: int) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as made:
        made.writestr("plan.md", b"a plan " * 20)
    return into.getvalue()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [archive(method) for method in METHODS]


@settings(max_examples=size(500, 10_000), deadline=None)
@given(st.sampled_from(ARCHIVES), st.dictionaries(st.integers(0, 300), st.integers(0, 255)))
def test_a_torn_archive_is_read_or_refused(whole: bytes, changes: dict[int, int]) -> None:
    torn = bytes(changes.get(at, byte) for at, byte in enumerate(whole))
    with contextlib.suppress(ForgeError):
        assert len(member(torn, "plan.md", 1000)) <= 1000
