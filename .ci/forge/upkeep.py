"""One comment and one issue of ours, found by a hidden marker and kept up to date.

A marker can be copied, so the author has to be us as well. Nothing is written where nothing
changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from texts import alike

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge import Forge, Note


def keep_comment(forge: Forge, number: int, mark: str, body: str, *, quiet: bool) -> str:
    """Say it in our comment on this pull request; what was done, in words.

    `quiet`: nothing that deserves a comment of its own; one that is there is still corrected.
    """
    wanted = f"{mark}\n{body}"
    ours = _ours(forge.comments(number), mark, forge.me())
    if ours is None and quiet:
        return "nothing to say"
    if ours is None:
        forge.add_comment(number, wanted)
        return "commented"
    if alike(ours.body, wanted):
        return "the comment is up to date"
    forge.edit_comment(number, ours.id, wanted)
    return "the comment was brought up to date"


def keep_issue(forge: Forge, mark: str, title: str, body: str | None) -> str:
    """One open issue with this body, or none where there is none to have; what was done."""
    ours = _ours(forge.issues(), mark, forge.me())
    if body is None:
        if ours is None:
            return "no issue is open"
        forge.edit_issue(ours.id, f"{mark}\nGone: nothing differs any more.\n", close=True)
        return "the issue was closed"
    wanted = f"{mark}\n{body}"
    if ours is None:
        forge.add_issue(title, wanted)
        return "an issue was opened"
    if alike(ours.body, wanted):
        return "the issue is up to date"
    forge.edit_issue(ours.id, wanted)
    return "the issue was brought up to date"


def _ours(notes: Iterable[Note], mark: str, me: str) -> Note | None:
    """The oldest that begins with our marker and that we wrote."""
    return next((n for n in notes if n.author == me and n.body.lstrip().startswith(mark)), None)
