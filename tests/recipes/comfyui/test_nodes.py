"""Every kind of node, in both forms: which LoRAs it loads, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from support.workflows import api, as_bytes, editors, loader, node

from composer.recipes.comfyui import Workflow, read

INK, DUST = "style\\ink.safetensors", "dust.safetensors"
NONE_LEFT = ["None", 1, 1, 1] * 48


def found(workflow: Workflow) -> list[tuple[str, float, float]]:
    (mix,) = workflow.mixes
    assert mix.problems == ()
    return [(use.file, use.strength, use.clip) for use in mix.uses]


# Kind, its inputs in the API's form, the values of its widgets in the editor's, its LoRAs.
KINDS: list[tuple[str, dict[str, Any], Any, list[tuple[str, float, float]]]] = [
    (
        "LoraLoader",
        {"lora_name": INK, "strength_model": 0.7, "strength_clip": 0.5},
        [INK, 0.7, 0.5],
        [(INK, 0.7, 0.5)],
    ),
    (
        "LoraLoaderModelOnly",
        {"lora_name": INK, "strength_model": 0.7},
        [INK, 0.7],
        [(INK, 0.7, 0)],
    ),
    (
        "LoraLoader|pysssss",
        {"lora_name": {"content": INK, "image": None}, "strength_model": 1, "strength_clip": 1},
        [{"content": INK, "image": None}, 1, 1],
        [(INK, 1, 1)],
    ),
    (
        "NunchakuFluxLoraLoader",
        {"lora_name": INK, "lora_strength": 0.8},
        [INK, 0.8],
        [(INK, 0.8, 0)],
    ),
    (
        "Power Lora Loader (rgthree)",
        {
            "PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"},
            "lora_1": {"on": True, "lora": INK, "strength": 0.7, "strengthTwo": 0.2},
            "lora_2": {"on": True, "lora": DUST, "strength": 0.3},
            "➕ Add Lora": "",
        },
        [
            {},
            {"type": "PowerLoraLoaderHeaderWidget"},
            {"on": True, "lora": INK, "strength": 0.7, "strengthTwo": 0.2},
            {"on": True, "lora": DUST, "strength": 0.3, "strengthTwo": None},
            {},
            "",
        ],
        [(INK, 0.7, 0.2), (DUST, 0.3, 0.3)],
    ),
    (
        "Lora Loader Stack (rgthree)",
        {
            "lora_01": INK,
            "strength_01": 0.7,
            "lora_02": "None",
            "strength_02": 1,
            "lora_03": DUST,
            "strength_03": 0.4,
            "lora_04": "None",
            "strength_04": 1,
        },
        [INK, 0.7, "None", 1, DUST, 0.4, "None", 1],
        [(INK, 0.7, 0.7), (DUST, 0.4, 0.4)],
    ),
    (
        "LoRA Stacker",
        {
            "input_mode": "simple",
            "lora_count": 2,
            "lora_name_1": INK,
            "lora_wt_1": 0.7,
            "model_str_1": 9,
            "clip_str_1": 9,
            "lora_name_2": "None",
            "lora_wt_2": 1,
            "lora_name_3": DUST,
            "lora_wt_3": 1,
        },
        ["simple", 2, INK, 0.7, 9, 9, "None", 1, 1, 1, DUST, 1, 1, 1, *NONE_LEFT],
        [(INK, 0.7, 0.7)],
    ),
    (
        "LoRA Stacker",
        {
            "input_mode": "advanced",
            "lora_count": 3,
            "lora_name_1": INK,
            "lora_wt_1": 9,
            "model_str_1": 0.7,
            "clip_str_1": 0.1,
        },
        ["advanced", 3, INK, 9, 0.7, 0.1, *NONE_LEFT],
        [(INK, 0.7, 0.1)],
    ),
    (
        "Efficient Loader",
        {"lora_name": INK, "lora_model_strength": 0.7, "lora_clip_strength": 0.6},
        ["flux.safetensors", "Baked VAE", -1, INK, 0.7, 0.6, "a knight", ""],
        [(INK, 0.7, 0.6)],
    ),
    (
        "CR LoRA Stack",
        {
            "switch_1": "On",
            "lora_name_1": INK,
            "model_weight_1": 0.7,
            "clip_weight_1": 0.7,
            "switch_2": "Off",
            "lora_name_2": DUST,
            "model_weight_2": 1,
            "clip_weight_2": 1,
        },
        ["On", INK, 0.7, 0.7, "Off", DUST, 1, 1, "Off", "None", 1, 1],
        [(INK, 0.7, 0.7)],
    ),
    (
        "Lora Loader (LoraManager)",
        {
            "text": "<lora:ink:0.7> <lora:dust:1>",
            "loras": {
                "__value__": [
                    {"name": "ink", "strength": "0.70", "active": True, "clipStrength": 0.2},
                    {"name": "dust", "strength": 1, "active": False},
                ]
            },
        },
        [
            {"version": 1, "textWidgetName": "text"},
            "<lora:ink:0.7> <lora:dust:1>",
            [
                {"name": "ink", "strength": "0.70", "active": True, "clipStrength": 0.2},
                {"name": "dust", "strength": 1, "active": False},
            ],
        ],
        [("ink", 0.7, 0.2)],
    ),
    (
        "Lora Stacker (LoraManager)",
        {"text": "", "loras": [{"name": "ink", "strength": 0.7, "active": True}]},
        ["", [{"name": "ink", "strength": 0.7, "active": True}]],
        [("ink", 0.7, 0.7)],
    ),
    (
        "LoRA Text Loader (LoraManager)",
        {"lora_syntax": "a knight <lora:ink:0.7>, <lora:dust:0.4:0.1>"},
        ["a knight <lora:ink:0.7>, <lora:dust:0.4:0.1>"],
        [("ink", 0.7, 0.7), ("dust", 0.4, 0.1)],
    ),
]


@pytest.mark.parametrize(
    ("kind", "inputs", "values", "expected"), KINDS, ids=lambda value: str(value)[:20]
)
def test_a_kind_of_node_in_both_forms(
    kind: str, inputs: dict[str, Any], values: Any, expected: list[tuple[str, float, float]]
) -> None:
    assert found(read(as_bytes(api((kind, inputs))))) == expected
    assert found(read(as_bytes(editors((kind, values))))) == expected
    named = editors((kind, inputs))  # newer editors keep values by name
    assert found(read(as_bytes(named))) == expected


def test_a_loader_alone_counts() -> None:
    alone = {"1": {"class_type": "LoraLoader", "inputs": loader(INK, 0.7)[1]}}
    assert found(read(as_bytes(alone))) == [(INK, 0.7, 0.7)]
    pair = {"nodes": [node(1, "LoraLoader", [INK, 0.7, 0.7]), node(2, "LoraLoader", [DUST, 1, 1])]}
    assert [file for file, *_ in found(read(as_bytes(pair)))] == [INK, DUST]


@pytest.mark.parametrize(("mode", "word"), [(2, "muted"), (4, "bypassed")])
def test_what_is_off_is_left_out_and_named(mode: int, word: str) -> None:
    one, two = ("LoraLoader", [INK, 0.7, 0.7]), ("LoraLoaderModelOnly", [DUST, 0.4])
    workflow = read(as_bytes(editors(one, two, modes=(0, mode))))
    assert found(workflow) == [(INK, 0.7, 0.7)]
    assert workflow.notes == (f"node 11 (LoraLoaderModelOnly): {DUST} is {word}: left out",)
    off = [{"on": False, "lora": DUST, "strength": 1}, {"on": True, "lora": INK, "strength": 1}]
    workflow = read(as_bytes(editors(("Power Lora Loader (rgthree)", off))))
    assert found(workflow) == [(INK, 1, 1)]
    assert "dust.safetensors is switched off" in workflow.notes[0]
    workflow = read(as_bytes(api(loader(INK, 0.5), loader(DUST, 0))))
    assert found(workflow) == [(INK, 0.5, 0.5)]
    assert "dust.safetensors has the strength 0" in workflow.notes[0]


LINKED = {"lora_name": INK, "strength_model": ["8", 0], "strength_clip": 1}
PROBLEMS = [
    ("LoraLoader", LINKED, "its strength comes from node 8"),
    ("LoraLoader", LINKED | {"strength_model": 1, "strength_clip": ["8", 0]}, "its CLIP strength"),
    ("LoraLoader", LINKED | {"lora_name": ["8", 0]}, "the LoRA's name comes from node 8"),
    ("LoraLoader", LINKED | {"strength_model": None}, "its strength is missing, not a number"),
    ("LoraLoader", LINKED | {"strength_model": True}, "its strength is True, not a number"),
    ("LoraLoader", LINKED | {"strength_model": float("nan")}, "nan, which no program takes"),
    ("LoraLoader", LINKED | {"strength_model": 10**400}, "which no program takes"),
    ("LoraLoader", LINKED | {"strength_model": "1e3"}, "its strength is '1e3', not a number"),
    ("LoraLoader", LINKED | {"strength_model": {"\x1b[31m": 1}}, "\\x1b[31m"),
    ("LoraLoaderBlockWeight", {"lora_name": INK, "blocks": "1,0"}, "this kind of node"),
    ("easy fullLoader", {"ckpt_name": "flux.safetensors", "lora_name": INK}, "this kind of node"),
    ("WanVideo Lora Select", {"items": [{"lora": INK}]}, "this kind of node"),
    ("Lora Randomizer (LoraManager)", {"loras": []}, "it chooses LoRAs while it runs"),
    ("LoRA Text Loader (LoraManager)", {"lora_syntax": ["8", 0]}, "comes from node 8"),
]


@pytest.mark.parametrize(("kind", "inputs", "words"), PROBLEMS)
def test_what_cant_be_read_is_named_with_its_node(
    kind: str, inputs: dict[str, Any], words: str
) -> None:
    (mix,) = read(as_bytes(api(loader(DUST, 1), (kind, inputs)))).mixes
    (problem,) = mix.problems
    assert problem.startswith(f"node 11 ({kind})")
    assert words in problem
    assert [use.file for use in mix.uses] == [DUST]


def test_a_loader_without_a_lora_is_none() -> None:
    other = ("easy fullLoader", {"ckpt_name": "flux.safetensors", "lora_name": "None"})
    assert read(as_bytes(api(("LoraLoader", {"lora_name": "None"}), other))).mixes == ()
