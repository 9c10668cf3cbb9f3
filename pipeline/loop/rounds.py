"""The flows of a loop's runs: which stages make candidates, scores and measures of a round, and what is kept.

A round, like the test of a remover, is a run that the engine carries out, with a run's accounting:

    drawn       references to rows of other runs
    candidates  what each remover makes of them
    scored      the discriminator's score of each candidate
    measured    each candidate compared with the truth, where there is one
    kept        the candidates that join the training set; all others are rejected with a reason
"""

from collections.abc import Mapping
from typing import Any

from rasura.pipeline.loop.state import DECISIONS, Loop, remover_path, round_path
from rasura.pipeline.training.remover import CURRENT, LORA
from rasura.pipeline.training.settings import build_training_settings

Flows = Mapping[str, Mapping[str, Any]]
"""Flows as a recipe has them, by name."""

SCENES = "scenes.json"
"""In a run of a loop: the rows that its candidates are made of."""


def describe_current_remover(loop: Loop, number: int) -> dict[str, Any]:
    """Describe the remover after a round as an entry of `models`."""
    config, path = loop.recipe.remover, remover_path(number)
    if config.preset == "tiny":
        return {"kind": "tiny", "base": loop.locate(path)}
    settings = build_training_settings(config, loop.recipe.seed, tune=False)
    model: dict[str, Any] = {"kind": "sdxl-inpaint", "base": str(config.base), "size": settings.size}
    if config.preset == "objectclear":  # a base of its own, but for the UNet that a LoRA belongs to
        model |= {"kind": "objectclear", "base": loop.locate(path), "unet": f"{config.base}/unet"}
    else:
        model |= {"steps": 50, "guidance": 1.0, "source": "whole" if settings.source == "whole" else "masked"}
    if config.prompts:
        model["prompts"] = str(config.prompts)
    if loop.store.exists(f"{path}/unet"):
        return model | {"unet": loop.locate(f"{path}/unet")}
    return model | {"lora": loop.locate(f"{path}/{LORA}")}


def list_candidate_flows(loop: Loop, number: int, remover: int, others: bool = True) -> Flows:
    """List the flows that make candidates.

    Args:
        number: of the round, for the column `round`.
        remover: round after which the remover in training is taken.
        others: also with the recipe's other removers.
    """
    recipe = loop.recipe
    names = [CURRENT, *(recipe.removers if others else [])]
    models = {name: model.model_dump(mode="json", exclude_none=True) for name, model in recipe.models.items()}
    models = {CURRENT: describe_current_remover(loop, remover)} | {
        name: models[name] for name in names if name in models
    }
    inpaint = {"removers": names, "models": models, "dilation": recipe.dilation, "context": recipe.context}
    rows = recipe.shard_scenes
    return {
        "drawn": {"source": {"drawn": {"rows": SCENES, "round": number}}, "shard_rows": rows},
        "candidates": {"source": {"flow": {"of": "drawn"}}, "stages": [{"inpaint": inpaint}], "shard_rows": rows},
    }


def count_shard_rows(loop: Loop, others: bool = True) -> int:
    """Return how many candidates a shard has: those of as many scenes as the recipe says."""
    return loop.recipe.shard_scenes * (1 + (len(loop.recipe.removers) if others else 0))


def list_scoring_flows(loop: Loop, discriminator: str, others: bool = True) -> Flows:
    """List the flow that scores candidates with a discriminator, which is named by its path or URI."""
    base = loop.recipe.discriminator.base
    score = {"discriminator": discriminator} | ({"base": str(base)} if base else {})
    return {
        "scored": {
            "source": {"flow": {"of": "candidates"}},
            "stages": [{"score": score}],
            "references": True,
            "shard_rows": count_shard_rows(loop, others),
        }
    }


def list_measuring_flows(loop: Loop, networks: bool, others: bool = True) -> Flows:
    """List the flow that compares candidates with the truth.

    Args:
        networks: also measure what the recipe names networks for.
    """
    files = loop.recipe.measures.list_files() if networks else {}
    return {
        "measured": {
            "source": {"compared": {"of": "candidates", "truth": "drawn"}},
            "stages": [{"measure": files}],
            "references": True,
            "shard_rows": count_shard_rows(loop, others),
        }
    }


def list_keeping_flows(loop: Loop, number: int, scored: bool) -> Flows:
    """List the flow that keeps the candidates on which the round has decided so.

    Args:
        scored: the candidates have scores, which are kept with them.
    """
    decisions = loop.locate(f"{round_path(number)}/{DECISIONS}")
    return {
        "kept": {
            "source": {"flow": {"of": "scored" if scored else "candidates"}},
            "stages": [{"choose": {"decisions": decisions}}],
            "shard_rows": count_shard_rows(loop),
        }
    }
