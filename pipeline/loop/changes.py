"""Changes of a loop's recipe between two commands: a setting that no step has used yet may still be corrected."""

from collections.abc import Mapping, Sequence
from typing import Any

from rasura.manifests.run_layout import COMMITS, table_path
from rasura.networks.tracking import WITHOUT_EFFECT
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.state import Loop, Step, list_steps

DISCRIMINATOR = ("pretrain", "judge")
CANDIDATES = ("pretrain", "inpaint")
USES: Mapping[str, Sequence[str]] = {
    "name": ("initial",),
    "seed": ("initial",),
    "initial": ("initial",),
    "pool": ("initial",),
    "test": ("initial",),
    "remover.preset": ("initial",),
    "remover.settings.size": ("initial",),
    "remover.base": ("train",),
    "remover.image_encoder": ("train",),
    "remover.prompts": ("train",),
    "remover.steps": ("train",),
    "remover.settings": ("train",),
    "remover.tune": ("tune",),
    "remover.tune_steps": ("tune",),
    "remover.tune_rate": ("tune",),
    "remover.distill": ("distill",),
    "removers": CANDIDATES,
    "models": CANDIDATES,
    "shard_scenes": (*CANDIDATES, "test"),
    "dilation": (*CANDIDATES, "test"),
    "context": (*CANDIDATES, "test"),
    "discriminator.preset": DISCRIMINATOR,
    "discriminator.base": DISCRIMINATOR,
    "discriminator.prompts": DISCRIMINATOR,
    "discriminator.precision_target": DISCRIMINATOR,
    "discriminator.confidence": DISCRIMINATOR,
    "discriminator.thresholds": (*DISCRIMINATOR, "add"),
    "discriminator.remover_share": ("add",),
    "discriminator.unchecked": ("add",),
    **{
        f"discriminator.{name}": DISCRIMINATOR
        for name in ("backend", "url", "model", "prompt", "max_tokens", "weights")
    },
    "discriminator.shares": DISCRIMINATOR,
    "discriminator.start": DISCRIMINATOR,
    "discriminator.pretrain_scenes": ("pretrain",),
    "discriminator.pretrain": ("pretrain",),
    "discriminator.settings": ("judge",),
    "rounds": ("draw",),
    "cap": ("draw",),
    "exclude": ("draw",),
    "reviewers": ("votes", "judge", "add"),
    "votes": ("votes",),
    "enough": ("votes",),
    "keep": ("inpaint", "add"),
    "measures": ("test",),
    "final": ("final",),
}
"""Keys of a recipe, and the names of the steps whose result follows from their value. The order of steps is compared
by itself."""
AUTOMATIC = ("discriminator.unchecked", "discriminator.remover_share")
"""Keys that only automatic rounds use."""


def find_used_changes(loop: Loop, before: LoopRecipe) -> list[str]:
    """Find the changes of a recipe that finished steps rule out.

    Args:
        loop: with the recipe to go on with.
        before: the recipe that the loop's steps were made with.

    Returns:
        The keys, each with the step that has used its former value; empty where the loop can go on.
    """
    steps = [step for step in list_steps(before) if loop.has_result(step) or _has_shards(loop, step)]
    former, present = _flatten(before), _flatten(loop.recipe)
    changed = [key for key in dict.fromkeys([*former, *present]) if former.get(key) != present.get(key)]
    used: list[str] = []
    for key in changed:
        users = [step for step in steps if step.name in USES.get(key, ("initial",))]
        if key in AUTOMATIC:
            users = [step for step in users if before.rounds[step.round - 1].kind == "auto"]
        if key == "rounds":
            users = [step for step in users if before.rounds[: step.round] != loop.recipe.rounds[: step.round]]
        if users:
            used.append(f"{key}, which '{users[0]}' has used")
    if not used and list_steps(loop.recipe)[: len(steps)] != steps:
        used = [f"{key}, which changes the order of steps that are done" for key in changed]
    return used


def _has_shards(loop: Loop, step: Step) -> bool:
    """Return True for a step that was killed after it had committed candidates: those to come must be like them."""
    return step.name in CANDIDATES and bool(loop.open_round(step.round).files(f"{table_path('candidates')}/{COMMITS}"))


def _flatten(recipe: LoopRecipe) -> dict[str, Any]:
    """Return the values of a recipe under the keys of `USES`."""
    flat: dict[str, Any] = {}
    for key, value in recipe.identify().items():
        if key in ("remover", "discriminator"):
            flat |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            flat[key] = value
    flat = {key: _drop_tracker(value) for key, value in flat.items()}
    settings = dict(flat["remover.settings"])
    return flat | {"remover.settings.size": settings.pop("size", None), "remover.settings": settings}


def _drop_tracker(value: Any) -> Any:
    """Return the settings of a training without those that may change at any time."""
    if not isinstance(value, Mapping):
        return value
    return {key: _drop_tracker(entry) for key, entry in value.items() if key not in WITHOUT_EFFECT}
