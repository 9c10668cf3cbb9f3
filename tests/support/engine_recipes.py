"""A recipe for the engine: rows that are kept, doubled, rejected and failed, and a selection."""

from typing import Any

COUNT = 48


def build_recipe_keys(sleep_s: float = 0.0, **more: Any) -> dict[str, Any]:
    """A recipe with rows that are kept, doubled, rejected and failed, and a selection."""
    flows = {
        "made": {
            "source": {"synthetic:Numbers": {"count": COUNT}},
            "stages": [{"synthetic:Triplet": {"sleep_s": sleep_s}}],
        },
        "chosen": {
            "source": {"flow": {"of": "made"}},
            "stages": [{"select": {"keep": {"number": {"max": COUNT - 5}}}}],
        },
    }
    return {"flows": flows, "dataset": {"flows": ["chosen"]}, "engine": {"shard_rows": 4, "workers": 2}, **more}
