"""The editor's form: subgraphs, the values that their instances have, links through their ends."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.workflows import as_bytes, node, with_subgraph

from composer.recipes.comfyui import LoraUse, NotAWorkflow, read

OWN = ["own.safetensors", 0.3]


def uses(workflow: dict[str, Any]) -> list[LoraUse]:
    return [use for mix in read(as_bytes(workflow)).mixes for use in mix.uses]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, ("own.safetensors", 0.3)),
        ({"widgets_values": ["ink.safetensors", 0.7]}, ("ink.safetensors", 0.7)),
        (
            {
                "widgets_values": [],
                "properties": {"proxyWidgets": [["7", "lora_name"], ["7", "strength_model"]]},
            },
            ("own.safetensors", 0.3),
        ),
        (
            {
                "widgets_values": ["ink.safetensors", 0.7],
                "properties": {"proxyWidgets": [["7", "lora_name"], ["-1", "strength_model"]]},
            },
            ("own.safetensors", 0.7),
        ),
        ({"widgets_values": ["of", "another", "version"]}, ("own.safetensors", 0.3)),
    ],
)
def test_an_instance_of_a_subgraph_has_values_of_its_own(
    host: dict[str, Any], expected: tuple[str, float]
) -> None:
    (use,) = uses(with_subgraph(OWN, host=host))
    assert (use.file, use.strength) == expected
    assert use.node == "node 50:7 (LoraLoaderModelOnly)"


def test_each_instance_counts_and_a_bypassed_one_is_named() -> None:
    workflow = with_subgraph(OWN, host={"widgets_values": ["ink.safetensors", 0.7]})
    second = copy.deepcopy(workflow["nodes"][2]) | {
        "id": 51,
        "widgets_values": ["b.safetensors", 1],
    }
    second["inputs"][0]["link"] = 4
    workflow["nodes"] += [second, node(5, "KSampler", [], inputs=[{"name": "model", "link": 5}])]
    workflow["links"] += [[4, 4, 0, 51, 0, "MODEL"], [5, 51, 0, 5, 0, "MODEL"]]
    assert [use.file for use in uses(workflow)] == ["ink.safetensors", "b.safetensors"]
    second["mode"] = 4
    read_again = read(as_bytes(workflow))
    assert [use.file for mix in read_again.mixes for use in mix.uses] == ["ink.safetensors"]
    assert read_again.notes == (
        "node 51:7 (LoraLoaderModelOnly): b.safetensors is bypassed: left out",
    )


def test_a_strength_from_outside_of_the_subgraph_is_named() -> None:
    workflow = with_subgraph(OWN, host={}, strength_link=3)
    (mix,) = read(as_bytes(workflow)).mixes
    assert mix.problems == (
        "node 50:7 (LoraLoaderModelOnly): own.safetensors: its strength comes from node 8",
    )


def test_the_way_of_a_model_leads_through_a_subgraph() -> None:
    """A loader before it, the one in it and one after it are one mix."""
    workflow = with_subgraph(OWN, host={})
    workflow["nodes"] += [
        node(60, "LoraLoaderModelOnly", ["before", 1], inputs=[{"name": "model", "link": 1}]),
        node(61, "LoraLoaderModelOnly", ["after", 1], inputs=[{"name": "model", "link": 2}]),
    ]
    workflow["nodes"][2]["inputs"][0]["link"] = 10
    workflow["nodes"][3]["inputs"][0]["link"] = 11
    workflow["links"] += [[10, 60, 0, 50, 0, "MODEL"], [11, 61, 0, 3, 0, "MODEL"]]
    (mix,) = read(as_bytes(workflow)).mixes
    assert [use.file for use in mix.uses] == ["before", "own.safetensors", "after"]


def test_a_subgraph_may_stand_in_another_one() -> None:
    workflow = with_subgraph(OWN, host={"widgets_values": ["ink.safetensors", 0.7]})
    (inner,) = workflow["definitions"]["subgraphs"]
    outer = {
        "id": "outer",
        "inputs": [{"name": "model"}, {"name": "strength"}],
        "nodes": [
            node(
                70,
                inner["id"],
                ["ink.safetensors", 0.2],
                inputs=[
                    {"name": "model", "link": 1},
                    {"name": "strength_model", "widget": {"name": "strength_model"}, "link": 2},
                ],
            )
        ],
        "links": [[1, -10, 0, 70, 0], [2, -10, 1, 70, 1], [3, 70, 0, -20, 0]],
    }
    workflow["definitions"]["subgraphs"].append(outer)
    workflow["nodes"][2] |= {"type": "outer", "widgets_values": [0.6]}
    (use,) = uses(workflow)
    assert (use.node, use.file, use.strength) == (
        "node 50:70:7 (LoraLoaderModelOnly)",
        "ink.safetensors",
        0.6,
    )


def test_a_subgraph_in_itself_is_refused() -> None:
    workflow = with_subgraph(OWN, host={})
    (subgraph,) = workflow["definitions"]["subgraphs"]
    for copies in (1, 2):  # one is deep, two are many
        subgraph["nodes"] += [node(100 + copies, subgraph["id"], [])]
        with pytest.raises(NotAWorkflow, match="20 levels of subgraphs"):
            read(as_bytes(workflow))


def test_more_nodes_than_anybody_has_are_refused() -> None:
    nodes = {str(n): {"class_type": "Note", "inputs": {}} for n in range(5001)}
    with pytest.raises(NotAWorkflow, match="5,000 nodes"):
        read(as_bytes(nodes))


def test_the_hash_of_a_file_is_taken_from_the_node() -> None:
    models = [{"name": "ink.safetensors", "hash": "AB" * 32, "hash_type": "SHA256"}]
    one = node(1, "LoraLoader", ["x/ink.safetensors", 1, 1], properties={"models": models})
    (use,) = uses({"nodes": [one], "links": []})
    assert use.sha256 == "ab" * 32
