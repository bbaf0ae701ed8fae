"""Contact sheets on a branch of their own, which a comment can show, by git.

The branch begins without the repository's history. The files of each preview are in a folder named
by their digest, so that the same ones are pushed once, and an address never shows other images.
Readers of a private repository see them there, and nobody else.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from composer.files.git import git
from composer.forge.api import ForgeError
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

BRANCH = "compose-previews"
_REF = f"refs/heads/{BRANCH}"
_ATTEMPTS = 5  # pushes, while other runs push too


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository's address for git over HTTP, and a token that may write to it."""

    url: str
    token: str = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """Git's environment: the token goes to this address alone, and is no argument."""
        address = urlsplit(self.url)
        host = f"{address.scheme}://{address.netloc}/"
        credentials = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        names = ("AUTHOR", "COMMITTER")
        return {
            "GIT_ALLOW_PROTOCOL": address.scheme,
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"http.{host}.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {credentials}",
            "GIT_CONFIG_KEY_1": "http.followRedirects",  # git would send the token along
            "GIT_CONFIG_VALUE_1": "false",
            **{f"GIT_{name}_NAME": "compose" for name in names},
            **{f"GIT_{name}_EMAIL": f"compose@noreply.{address.hostname}" for name in names},
        }


def digest_of(files: Mapping[str, bytes]) -> str:
    """The name of the folder of these files: 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n{len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()


def push(remote: Remote, files: Mapping[str, bytes]) -> bool:
    """Put these files on the branch; False if they are there already. Raises `ForgeError`."""
    with TemporaryDirectory(prefix="compose-previews-") as folder:
        repository = _Repository(Path(folder), remote)
        repository.git("init", "--quiet", "--bare")
        repository.git("remote", "add", "origin", remote.url)
        for _ in range(_ATTEMPTS):
            tip = repository.fetch()
            if tip and repository.git("ls-tree", tip, digest_of(files)):
                return False
            if repository.push(repository.commit(tip, files), tip):
                return True
    raise ForgeError(f"the branch {BRANCH} changed {_ATTEMPTS} times meanwhile")


@dataclass(frozen=True, slots=True)
class _Repository:
    """A repository of one run, with the tip of the branch and what is added to it."""

    folder: Path
    remote: Remote

    def git(self, *arguments: str, given: bytes = b"") -> str:
        """What git prints. Raises `ForgeError` with its last line."""
        status, out, message = self._run(*arguments, given=given)
        if status:
            raise ForgeError(f"git {arguments[0]} ({BRANCH}): {message}")
        return out

    def _run(self, *arguments: str, given: bytes = b"") -> tuple[int, str, str]:
        variables = self.remote.variables
        try:
            ran = git(self.folder, *arguments, variables=variables, given=given)
        except FileNotFoundError as missing:
            raise ForgeError("git is not installed") from missing
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        message = next((line for line in lines if line.startswith(("fatal:", "remote:"))), "")
        message = message or (lines[-1] if lines else f"exit status {ran.returncode}")
        return ran.returncode, ran.stdout.decode().strip(), shorten(visible(message), 300)

    def fetch(self) -> str:
        """The tip of the branch, without the contents of its files; empty if there is none."""
        if not self.git("ls-remote", "origin", _REF):
            return ""
        self.git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", _REF)
        return self.git("rev-parse", "FETCH_HEAD")

    def commit(self, tip: str, files: Mapping[str, bytes]) -> str:
        """A commit on top of `tip` that adds the files."""
        self.git("read-tree", tip or "--empty")
        folder = digest_of(files)
        for name, data in files.items():
            blob = self.git("hash-object", "-w", "--stdin", given=data)
            self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{folder}/{name}")
        tree = self.git("write-tree", "--missing-ok")
        parent = ["-p", tip] if tip else []
        return self.git("commit-tree", *parent, "-m", f"Contact sheets {folder[:12]}", tree)

    def push(self, commit: str, tip: str) -> bool:
        """Whether it was accepted; not if the branch is no longer at `tip`."""
        status, _, message = self._run("push", "--quiet", "origin", f"{commit}:{_REF}")
        if status and self.fetch() == tip:
            raise ForgeError(f"git push ({BRANCH}): {message}")
        return not status
