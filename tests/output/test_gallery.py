"""The pages on a project: complete, with relative links that lead somewhere, safe with any text."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.galleries import USAGES, details, gallery
from support.hostile import HOSTILE, texts
from support.sizes import size

from composer.output.gallery import DISTANT, HUES, INDEX, ROWS, Pages, image_name, in_script
from composer.output.gallery_view import Composition, Details, Gallery, State

NAME = re.compile(r"(c|l|images)/[a-z0-9-]{1,90}\.(html|webp)|[a-z0-9-]+\.(html|css)")
VOID = {"meta", "link", "img", "input", "rect", "path", "br"}


class Parser(HTMLParser):
    """Links and ids of a page, the words in it, and whether its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            is_data = self.elements[-1][1].get("id") == "data"
            self.data += data if is_data else ""
        else:
            self.words.append(data)


def site(one: Gallery) -> dict[str, str]:
    return {page.name: page.text() for page in Pages(one, details)}


def html(files: dict[str, str]) -> dict[str, Parser]:
    return {name: Parser(text) for name, text in files.items() if name.endswith(".html")}


def test_every_link_leads_to_a_file_of_the_site() -> None:
    one = gallery(12, pictures=True)
    files = site(one)
    images = {
        image_name(c.images[0].digest, end) for c in one.compositions for end in ("", "-small")
    }
    for name, page in html(files).items():
        assert page.links
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or (not parts.path and parts.fragment):
                continue
            assert (parts.scheme, parts.netloc) == ("", "")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path))
            assert target in files or target in images, (name, link)


def test_names_are_stable_and_lead_nowhere_else() -> None:
    one = gallery(40, texts=HOSTILE)
    first, second = ({page.name for page in Pages(one, details)} for _ in range(2))
    assert first == second
    assert all(NAME.fullmatch(name) for name in first)
    assert len(Pages(one, details).names) == len({*Pages(one, details).names.values()}) == 40


TWO = gallery(2)


@settings(max_examples=size(50, 4000), suppress_health_check=[HealthCheck.too_slow])
@given(texts, texts, texts)
def test_any_name_is_a_file_of_its_own(name: str, path: str, other: str) -> None:
    one = TWO
    compositions = (
        replace(one.compositions[0], name=name, path=path),
        replace(one.compositions[1], name=name, path=f"{path}/{other}"),
    )
    pages = Pages(replace(one, compositions=compositions), details)
    assert len({*pages.names.values()}) == 2
    assert all(NAME.fullmatch(name) for name in pages.names.values())


def test_names_that_differ_in_nothing_that_a_file_name_keeps() -> None:
    names = ["Ink", "ink", "INK", "🏰", "城", "فارس", "i" * 64, "con", "nul.html"]
    one = gallery(len(names))
    renamed = [replace(c, name=n) for c, n in zip(one.compositions, names, strict=True)]
    pages = Pages(replace(one, compositions=tuple(renamed)), details)
    assert len({name.casefold() for name in pages.names.values()}) == len(names)


@pytest.mark.parametrize("words", HOSTILE)
def test_a_strangers_words_are_words(words: str) -> None:
    plain, hostile = html(site(gallery(6))), html(site(gallery(6, texts=[words])))
    for name, page in hostile.items():
        tags = {tag for tag, _ in page.elements}
        assert tags <= {tag for other in plain.values() for tag, _ in other.elements}, name
        handlers = [key for _, attrs in page.elements for key in attrs if key.startswith("on")]
        assert handlers == []
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(page.words)
        )


@settings(max_examples=size(20, 1000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(texts, min_size=1, max_size=4))
def test_whatever_is_written_pages_are_well_formed(some: list[str]) -> None:
    files = site(gallery(2, loras=2, texts=some))
    parsed = html(files)
    for text in files.values():
        text.encode("utf-8")
    assert len(json.loads(parsed[INDEX].data)["cards"]) == 2


@settings(max_examples=size(40, 4000))
@given(st.recursive(st.text() | st.floats(allow_nan=False), lambda inner: st.lists(inner)))
def test_data_never_ends_its_element(value: object) -> None:
    text = in_script(value)
    assert "<" not in text
    assert json.loads(text) == value


def test_the_policy_allows_no_host_and_no_other_script() -> None:
    for name, page in html(site(gallery(3))).items():
        (policy,) = [
            a["content"] or "" for t, a in page.elements if t == "meta" and "http-equiv" in a
        ]
        assert "default-src 'none'" in policy
        assert not re.search(r"https?:|unsafe|\*", policy)
        scripts = [a for t, a in page.elements if t == "script" and not a.get("type")]
        assert len(scripts) == (name == INDEX)
        assert ("script-src 'sha256-" in policy) == (name == INDEX)


def test_a_page_says_what_there_is() -> None:
    one = gallery(7, pictures=True)
    chosen = one.compositions[4]
    pages = Pages(one, details)
    page = Parser({p.name: p for p in pages}[pages.names[chosen.path]].text())
    said = " ".join("".join(page.words).split())
    loras = [one.loras[part.lora] for part in chosen.parts]
    expected = [chosen.name, chosen.id, chosen.path, chosen.description, *USAGES.values()]
    expected += [*(lora.name for lora in loras), *(part.name for part in ()), "a fox in the snow"]
    expected += ["seed 7", "2026-05-01", "Maya", "What each LoRA changes", "Where they overlap"]
    assert [words for words in expected if words not in said] == []


def test_without_details_it_says_what_to_do() -> None:
    one = gallery(3)
    pages = Pages(one, lambda composition: Details())
    files = {page.name: page.text() for page in pages}
    trained, untrained = (files[pages.names[one.compositions[n].path]] for n in (1, 0))
    assert "compose output &#39;Grey Knight&#39; --usage PROGRAM" in trained
    assert "compose preview recipes/1.yaml" in trained
    assert "compose apply" in untrained


def test_a_lora_knows_where_it_is_used() -> None:
    one = gallery(10, loras=3)
    pages = Pages(one, details)
    files = {page.name: page.text() for page in pages}
    for key, lora in one.loras.items():
        page = Parser(files[pages.lora_names[key]])
        uses = [c for c in one.compositions if any(part.lora == key for part in c.parts)]
        linked = {link.removeprefix("../") for link in page.links if link.startswith("../c/")}
        assert linked == {pages.names[c.path] for c in uses}
        assert f"Used in {len(uses)} composition" in "".join(page.words)
        assert lora.name in "".join(page.words)


def test_the_list_has_all_without_a_script() -> None:
    pages = Pages(gallery(2 * ROWS + 1), details)
    lists = {page.name: page for page in pages if page.name.startswith("list")}
    assert [*lists] == ["list.html", "list-2.html", "list-3.html"]
    linked = [
        link
        for page in lists.values()
        for link in Parser(page.text()).links
        if link.startswith("c/")
    ]
    assert linked == [*pages.names.values()]


def test_the_data_of_the_script_is_short_and_right() -> None:
    one = gallery(1000)
    page = Parser({p.name: p for p in Pages(one, details)}[INDEX].text())
    data = json.loads(page.data)
    assert len(page.data) < 200 * 1000
    for composition, card in zip(one.compositions, data["cards"], strict=True):
        name, _, state, id, flat, tags, *_ = card
        assert (name, id) == (composition.name, composition.id)
        assert data["states"][state] == composition.state
        assert [data["tags"][tag] for tag in tags] == [*composition.tags]
        used = [(one.loras[p.lora].name, p.scale) for p in composition.parts]
        assert [(data["loras"][n][0], s) for n, s in zip(*[iter(flat)] * 2, strict=True)] == used


def test_colours_are_stable_and_differ_as_long_as_there_are_any() -> None:
    few, more = (Pages(gallery(4, loras=n), details).hues for n in (HUES, HUES + 3))
    assert sorted(few.values()) == [*range(HUES)]
    assert sorted(set(more.values())) == [*range(HUES)]
    eight = sorted(Pages(gallery(4, loras=DISTANT), details).hues.values())
    assert [b - a for a, b in pairwise(eight)] == [HUES // DISTANT] * (DISTANT - 1)
    one = Pages(gallery(4, loras=6), details).hues
    other = Pages(gallery(4, loras=7), details).hues
    assert sum(other[key] != hue for key, hue in one.items()) <= 1


def digests(one: Gallery, **more: bool) -> dict[str, str]:
    return {page.name: page.digest for page in Pages(one, details, **more)}


def test_what_a_page_is_made_from_decides_whether_it_is_made_again() -> None:
    one = gallery(5)
    before = digests(one)
    assert digests(gallery(5)) == before

    def changed(**fields: object) -> set[str]:
        first: Composition = replace(one.compositions[0], **fields)  # type: ignore[arg-type]
        after = digests(replace(one, compositions=(first, *one.compositions[1:])))
        return {name for name in after if after[name] != before.get(name)}

    names = Pages(one, details)
    own = names.names[one.compositions[0].path]
    lora = names.lora_names[one.compositions[0].parts[0].lora]
    listed = {INDEX, "list.html", "loras.html"}
    for fields in ({"reason": "x"}, {"state": State.BLOCKED}, {"revisions": ()}, {"tags": ("x",)}):
        assert changed(**fields) == {own, lora, *listed}
    assert digests(one, compared=False)[own] != before[own]
