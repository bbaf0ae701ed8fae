"""Which loaders are of one mix: those on the way to one sampler."""

from __future__ import annotations

from typing import Any

import pytest
from support.workflows import api, as_bytes, editors, loader, node

from composer.recipes.comfyui import NotAWorkflow, Workflow, read


def mixes(workflow: Workflow) -> list[list[str]]:
    return [[use.file for use in mix.uses] for mix in workflow.mixes]


def one(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def lora(file: str, source: str) -> dict[str, Any]:
    return one("LoraLoaderModelOnly", lora_name=file, strength_model=1, model=[source, 0])


def test_two_samplers_with_other_loras_are_two_mixes() -> None:
    """A style for both, and a character for each; whatever stands between passes the model on."""
    nodes = {
        "1": lora("style", "0"),
        "2": one("Reroute", **{"": ["1", 0]}),
        "3": one("ModelSamplingFlux", model=["2", 0], image=["9", 0]),
        "4": lora("knight", "3"),
        "5": lora("rogue", "2"),
        "8": one("KSampler", model=["4", 0]),
        "9": one("KSampler", model=["5", 0]),
    }
    assert sorted(mixes(read(as_bytes(nodes)))) == [["style", "knight"], ["style", "rogue"]]
    nodes["9"] = one("KSampler", model=["1", 0])  # a part of the other mix is none of its own
    del nodes["5"]
    assert mixes(read(as_bytes(nodes))) == [["style", "knight"]]
    nodes["6"] = lora("style", "0")  # two stages of one mix are one
    nodes["7"] = lora("knight", "6")
    nodes["9"] = one("KSampler", model=["7", 0])
    assert mixes(read(as_bytes(nodes))) == [["style", "knight"]]


def test_stacks_are_of_the_mix_that_they_are_applied_in() -> None:
    stacker = "LoRA Stacker"
    nodes = {
        "1": one(stacker, input_mode="simple", lora_count=1, lora_name_1="a", lora_wt_1=1),
        "2": one(stacker, input_mode="simple", lora_count=1, lora_name_1="b", lora_wt_1=1),
        "3": one("CR Apply LoRA Stack", lora_stack=["2", 0], model=["4", 0], clip=["4", 1]),
        "4": lora("c", "0"),
        "5": one("KSampler", model=["3", 0]),
    }
    nodes["2"]["inputs"]["lora_stack"] = ["1", 0]
    (found,) = mixes(read(as_bytes(nodes)))
    assert sorted(found) == ["a", "b", "c"]


def test_a_bypassed_loader_passes_the_model_on() -> None:
    three = [("LoraLoaderModelOnly", [name, 1]) for name in "abc"]
    workflow = read(as_bytes(editors(*three, modes=(0, 4, 4))))
    assert mixes(workflow) == [["a"]]
    assert len(workflow.notes) == 2


def test_a_loader_that_nothing_uses_is_named() -> None:
    nodes = {**api(loader("ink", 1)), "20": lora("stray", "4")}
    workflow = read(as_bytes(nodes))
    assert mixes(workflow) == [["ink"]]
    assert workflow.notes == ("node 20 (LoraLoaderModelOnly): stray is not connected: left out",)


def test_a_model_is_passed_on_by_name() -> None:
    """SetNode and GetNode of KJNodes, which exist in the editor alone."""
    workflow = editors(("LoraLoaderModelOnly", ["ink", 1]))
    workflow["nodes"][-1] = node(3, "SetNode", ["flux"], inputs=[{"name": "MODEL", "link": 99}])
    workflow["nodes"] += [
        node(5, "GetNode", ["flux"]),
        node(6, "LoraLoaderModelOnly", ["dust", 1], inputs=[{"name": "model", "link": 7}]),
        node(8, "KSampler", [], inputs=[{"name": "model", "link": 9}]),
    ]
    workflow["links"] += [[7, 5, 0, 6, 0, "MODEL"], [9, 6, 0, 8, 0, "MODEL"]]
    assert mixes(read(as_bytes(workflow))) == [["ink", "dust"]]


def test_circles_end() -> None:
    nodes = {"1": lora("a", "2"), "2": lora("b", "1")}
    assert mixes(read(as_bytes(nodes))) == [["a", "b"]]
    nodes["3"] = one("KSampler", model=["2", 0])
    assert mixes(read(as_bytes(nodes))) == [["a", "b"]]


def test_more_loaders_than_anybody_has_are_refused() -> None:
    with pytest.raises(NotAWorkflow, match="more than 100 LoRA loaders"):
        read(as_bytes({str(n): lora("a", "0") for n in range(101)}))
