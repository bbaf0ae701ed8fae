"""Links to images: who may follow them, until when, and where they lead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from support import serving
from support.engine_files import PATIENCE
from support.painter import Painter
from support.serving import basic
from support.shapes import refused

from composer.errors import TargetError
from composer.server.asset_links import AssetLinks, link_key
from composer.server.request_fields import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

SMALL = {"width": 128, "height": 128}


@pytest.fixture
def painting(root: Path) -> Iterator[Served]:
    with serving.thread(root, root / "recipes" / "loras", renderer=Painter()) as served:
        yield served


def link(served: Served) -> str:
    """Where an image is."""
    (asset,) = served.ended(served.generate(**SMALL))["metadata"]["assetIds"]
    return str(served.ok("GET", f"/assets/{asset}")["asset"]["url"])


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=PATIENCE, allow_redirects=False)


def test_a_link_needs_no_credentials_and_wrong_ones_do_no_harm(painting: Served) -> None:
    url = link(painting)
    for headers in ({}, basic("a", "b")):
        answer = get(url, **headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "attachment" in answer.headers["Content-Disposition"]
    part = get(url, Range="bytes=0-7")
    assert (part.status_code, part.content) == (206, b"\x89PNG\r\n\x1a\n")
    refused(get(url, Host="evil.example"), 421)


def test_a_link_that_was_changed_leads_nowhere(painting: Served) -> None:
    url, other = link(painting), link(painting)
    base, query = url.split("?")
    expires, signature = (parse_qs(query)[name][0] for name in ("expires", "signature"))
    folder = base.removesuffix("/content").rpartition("/")[0]
    for changed in (
        base,
        f"{base}?expires={expires}",
        f"{base}?signature={signature}",
        f"{base}?expires={int(expires) + 1}&signature={signature}",
        f"{base}?expires={expires}&signature={signature[:-1]}",
        f"{base}?expires={expires}&signature=%C3%A9",
        f"{base}?expires=x&signature={signature}",
        f"{other.split('?')[0]}?{query}",
        f"{folder}/asset_x/content?{query}",
        f"{folder}/..%5c..%5cengine.sqlite3/content?{query}",
    ):
        assert "not made by this server" in refused(get(changed), 403), changed
    refused(get(f"{folder}/..%2f..%2fengine.sqlite3/content?{query}"), 401)  # no such call
    assert get(url).status_code == 200


def test_an_expired_link_is_refused_and_a_new_one_works(root: Path) -> None:
    with serving.thread(
        root, root / "recipes" / "loras", renderer=Painter(), link_life=-1
    ) as served:
        url = link(served)
        assert "expired" in refused(get(url), 403)
    with serving.thread(root, root / "recipes" / "loras") as again:
        path = urlsplit(url).path.removeprefix("/v1").removesuffix("/content")
        assert get(again.ok("GET", path)["asset"]["url"]).status_code == 200


def test_links_outlive_a_restart_and_are_in_no_log(root: Path) -> None:
    with serving.thread(root, root / "recipes" / "loras", renderer=Painter()) as served:
        url = urlsplit(link(served))
    with serving.thread(root, root / "recipes" / "loras") as again:
        assert get(f"{again.url}{url.path.removeprefix('/v1')}?{url.query}").status_code == 200
    signature = parse_qs(url.query)["signature"][0]
    for said in (*served.lines, *again.lines, again.log.read_text()):
        assert signature not in said
    if os.name == "posix":
        assert (root / "state" / "asset-links.key").stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_removed_is_not_found(painting: Served, root: Path) -> None:
    url = link(painting)
    (file,) = (root / "state" / "assets").iterdir()
    file.unlink()
    assert "deleted" in refused(get(url), 404)


def test_the_key_is_made_once_and_never_read_through_a_link(tmp_path: Path) -> None:
    key = link_key(tmp_path)
    assert link_key(tmp_path) == key and len(key) == 32
    file = tmp_path / "asset-links.key"
    file.write_bytes(b"short")
    with pytest.raises(TargetError, match="damaged"):
        link_key(tmp_path)
    if os.name == "posix":
        file.unlink()
        (tmp_path / "elsewhere").write_bytes(b"k" * 32)
        file.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(TargetError, match=r"asset-links\.key"):
            link_key(tmp_path)


def test_another_key_makes_other_links() -> None:
    query = parse_qs(AssetLinks(b"a" * 32).query("asset_x"))
    given = query["expires"][0], query["signature"][0]
    AssetLinks(b"a" * 32).check("asset_x", *given)
    for links, asset in ((AssetLinks(b"b" * 32), "asset_x"), (AssetLinks(b"a" * 32), "asset_y")):
        with pytest.raises(Refusal):
            links.check(asset, *given)
    assert "a" * 32 not in repr(AssetLinks(b"a" * 32))
