"""What is a workflow, where it is found, and that nothing hostile gets through or takes long."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size
from support.workflows import (
    api,
    as_bytes,
    editors,
    loader,
    manager_recipe,
    png,
    text_chunk,
    webp,
    with_subgraph,
)

from composer.recipes.comfyui import NotAWorkflow, Workflow, read

INK = "ink.safetensors"
API, EDITOR = api(loader(INK, 0.7)), editors(("LoraLoader", [INK, 0.3, 0.3]))
RECIPE = manager_recipe(
    {"file_name": "ink", "hash": "AB" * 32, "strength": 0.7, "modelName": "Ink", "exclude": False},
    {"file_name": "", "modelName": "Dust", "weight": 0.4},
    {"file_name": "stone", "strength": 1, "exclude": True},
)


def strengths(workflow: Workflow) -> list[tuple[str, float]]:
    return [(use.file, use.strength) for mix in workflow.mixes for use in mix.uses]


@pytest.mark.parametrize(
    "workflow",
    [
        API,
        {"prompt": API, "client_id": "x"},
        {"workflow": editors(("LoraLoader", [INK, 0.7, 0.7]))},
    ],
)
def test_a_workflow_may_be_wrapped(workflow: dict[str, Any]) -> None:
    assert strengths(read(as_bytes(workflow))) == [(INK, 0.7)]
    assert strengths(read(b"\xef\xbb\xbf" + as_bytes(workflow))) == [(INK, 0.7)]


def test_in_an_image_what_was_executed_comes_first() -> None:
    prompt, workflow = json.dumps(API), json.dumps(EDITOR)
    both = png(text_chunk("workflow", workflow), text_chunk("prompt", prompt))
    assert strengths(read(both)) == [(INK, 0.7)]
    assert strengths(read(png(text_chunk("workflow", workflow)))) == [(INK, 0.3)]
    words = png(text_chunk("prompt", "a knight"), text_chunk("workflow", workflow))
    assert strengths(read(words)) == [(INK, 0.3)]
    assert strengths(read(webp((0x110, f"prompt:{prompt}")))) == [(INK, 0.7)]
    assert strengths(read(webp((0x10E, f"Workflow:{workflow}")))) == [(INK, 0.3)]


def test_a_recipe_of_lora_manager() -> None:
    """As a file, and in the images that LoRA Manager saves with it."""
    text = f"a knight\nSteps: 20 \n Recipe metadata: {json.dumps(RECIPE)}"
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    for data in (as_bytes(RECIPE), png(text_chunk("parameters", text)), webp(comment=comment)):
        workflow = read(data)
        assert workflow.title == "Knight"
        assert strengths(workflow) == [("ink", 0.7), ("Dust", 0.4)]
        (mix,) = workflow.mixes
        assert (mix.uses[0].sha256, mix.uses[0].clip) == ("ab" * 32, 0.7)
        assert workflow.notes == ("LoRA 3: stone is switched off: left out",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n", "the file is empty"),
        (b"{", "not valid JSON: line 1, column 2"),
        (b"\xff\xfe\x00", "neither UTF-8 nor a PNG or WebP image"),
        (b"\xff\xd8\xff\xe0 a JPEG", "neither UTF-8"),
        (b"[" * 100_000, "not valid JSON: nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: a number in it has too many digits"),
        (b"[]", "neither a ComfyUI workflow nor a recipe"),
        (b'{"nodes": {}}', "neither a ComfyUI workflow nor a recipe"),
        (b'{"a": {"b": 1}}', "neither a ComfyUI workflow nor a recipe"),
        (b" " * (8 * 1024 * 1024 + 1), "more than 8,388,608 bytes"),
        (png(), "the image has no ComfyUI workflow in it"),
        (png(text_chunk("parameters", "Recipe metadata: {]")), "its recipe is not valid JSON"),
        (png()[:20], "the image is damaged: it ends too early"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_workflow_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(NotAWorkflow) as refused:
        read(data)
    assert words in str(refused.value)


def test_a_large_file_takes_no_longer_than_a_few_seconds() -> None:
    """All that the limits allow: nodes, loaders, links, and a file of eight megabytes."""
    links = {f"model{n}": [str(n % 4000), 0] for n in range(150)}
    nodes: dict[str, Any] = {
        str(n): {"class_type": "Reroute", "inputs": {"model": [str(n + 1), 0]}} for n in range(4000)
    }
    for n in range(size(20, 90)):
        nodes[f"lora{n}"] = {"class_type": "LoraLoader", "inputs": {**loader(INK, 1)[1], **links}}
        nodes[f"end{n}"] = {"class_type": "KSampler", "inputs": {"model": [f"lora{n}", 0]}}
    nodes["pad"] = "x" * 7_000_000
    began = time.process_time()
    read(as_bytes(nodes))
    assert time.process_time() - began < 5


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = ["nodes", "links", "type", "class_type", "inputs", "widgets_values", "id", "mode", "loras"]
JSON = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
WHOLE = [API, EDITOR, RECIPE, with_subgraph([INK, 1], host={"widgets_values": [INK, 0.5]})]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        found += places(value[key], (*path, key))
    return found


@settings(max_examples=size(25, 2000), deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_json_is_read_or_refused(value: Any) -> None:
    read_or_refused(as_bytes(value))


@settings(max_examples=size(30, 5000), deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_a_workflow_with_anything_in_it_is_read_or_refused(whole: Any, data: st.DataObject) -> None:
    workflow = json.loads(json.dumps(whole))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(workflow)))
        parent = workflow
        for key in path:
            parent = parent[key]
        parent[last] = data.draw(JSON)
    read_or_refused(as_bytes(workflow))


def read_or_refused(data: bytes) -> None:
    try:
        workflow = read(data)
    except NotAWorkflow as why:
        assert str(why)
        return
    for mix in workflow.mixes:
        assert mix.uses or mix.problems
        assert all(abs(use.strength) <= 1000 for use in mix.uses)
        said = [*mix.problems, *workflow.notes, *(use.place for use in mix.uses)]
        assert all(line.isprintable() or " " in line for line in said)
        assert not any("\x1b" in line or "\n" in line for line in said)
