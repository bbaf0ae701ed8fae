"""A lock as text and the same as values, and what a refused text looks like."""

from __future__ import annotations

import pytest
from support.model_types import COMPOSITION

from composer.errors import InvalidInput
from composer.lock import parse
from composer.model import Concept, Content, Entry, Lock, Next, Replaced, TargetLock, parameters

KEY = "https://api.cloud.scenario.com/v1"
SAMPLE = """\
{
  "about": "Written by compose. Commit it; do not edit it.",
  "version": 2,
  "targets": {
    "https://api.cloud.scenario.com/v1": {
      "owner": "team_U3Qmc8PCdWXwAQJ4Dvw4tV6D",
      "recipes": {
        "recipes/storybook-knight.yaml": {
          "name": "Storybook Knight",
          "type": "flux.1-composition",
          "pins": {
            "Storybook Watercolour": "model_V2anp75qTuKmmHOeInzQhg"
          },
          "composition": "model_eyVcnFJcR92BxBkz7N6g5w",
          "job": "job_ocZCnG1Df35XRL1QyCZSRxAG8",
          "content": {
            "concepts": [
              {
                "modelId": "model_I3fUkYcTSYPEkhvYMDvSQ",
                "modelEpoch": "000010",
                "scale": 0.8
              },
              {
                "modelId": "model_V2anp75qTuKmmHOeInzQhg",
                "scale": 0.65
              }
            ],
            "training": {
              "rank": 32
            }
          },
          "tags": [
            "knights",
            "tutorial"
          ],
          "protect": false,
          "next": {
            "composition": "model_next",
            "job": "job_next",
            "content": {
              "concepts": [
                {
                  "modelId": "model_V2anp75qTuKmmHOeInzQhg",
                  "scale": 1
                }
              ]
            },
            "state": "training"
          },
          "replaced": [
            {
              "id": "model_old",
              "name": "Storybook Knight",
              "training": {
                "samplePrompts": [
                  "a knight",
                  "a \\"rogue\\""
                ]
              },
              "protect": true
            }
          ]
        }
      }
    }
  }
}
"""
KNIGHT = Entry(
    name="Storybook Knight",
    pins=(("Storybook Watercolour", "model_V2anp75qTuKmmHOeInzQhg"),),
    composition="model_eyVcnFJcR92BxBkz7N6g5w",
    job="job_ocZCnG1Df35XRL1QyCZSRxAG8",
    content=Content.of(
        COMPOSITION,
        [
            Concept("model_V2anp75qTuKmmHOeInzQhg", 0.65),
            Concept("model_I3fUkYcTSYPEkhvYMDvSQ", 0.8, "000010"),
        ],
        parameters({"rank": 32}),
    ),
    tags=("knights", "tutorial"),
    next=Next(
        "model_next",
        Content.of(COMPOSITION, [Concept("model_V2anp75qTuKmmHOeInzQhg", 1.0)]),
        "training",
        "job_next",
    ),
    replaced=(
        Replaced(
            "model_old",
            "Storybook Knight",
            parameters({"samplePrompts": ["a knight", 'a "rogue"']}),
            protect=True,
        ),
    ),
)
OWNER = "team_U3Qmc8PCdWXwAQJ4Dvw4tV6D"


def lock_of(entry: Entry, path: str = "recipes/storybook-knight.yaml") -> Lock:
    return Lock({KEY: TargetLock(OWNER, {path: entry})})


def refused(text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        parse(text)
    assert caught.value.exit_status == 65
    assert "\n" not in str(caught.value)
