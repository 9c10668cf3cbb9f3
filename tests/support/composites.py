"""Composites of made-up foregrounds and backgrounds."""

import numpy as np
from support.paste_scenes import make_foreground, make_ground_columns, make_record

from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.stage import Kept

GUESSES = {"max_view_error": None, "max_size_error": None}  # floors and sizes that nobody measured are taken


def compose(*args, seed=0, params=None, **kwargs):
    return Composite(CompositeParams(**GUESSES | (params or {})), seed).process_one(make_record(*args, **kwargs))


def compose_kept(*args, **kwargs):
    outcome = compose(*args, **kwargs)
    assert isinstance(outcome, Kept), outcome
    (out,) = outcome.records
    return out


def make_random_foregrounds(rng, count):
    """Foregrounds of random shapes, shadows, light and cameras; some know all of it, some nothing."""
    things = []
    for k in range(count):
        height, width = (int(v) for v in rng.integers(20, 70, 2))
        thing = make_foreground(f"t{k}", height, width, tuple(int(v) for v in rng.integers(0, 255, 3)), at=(90, 120))
        rgba = thing["foreground"].copy()
        solid = thing["foreground_object"]
        rgba[..., 3] = np.where(solid, 255, rng.integers(0, 200, solid.shape))
        rgba[:4, :, 3] = rng.integers(0, 255, (4, solid.shape[1]))  # a torn rim with colours of its own
        rgba[:4, :, :3] = rng.integers(0, 255, (4, solid.shape[1], 3))
        if rng.random() < 0.5:
            thing["foreground_light"] = np.where(solid[..., None], 0, rng.integers(0, 30, (*solid.shape, 3))).astype(
                np.uint8
            )
        if rng.random() < 0.7:
            thing |= make_ground_columns(
                pitch=float(rng.uniform(5, 30)), camera_height=float(rng.uniform(1, 3)), metric=rng.random() < 0.5
            )
        if rng.random() < 0.7:
            thing |= {"shadow_azimuth": float(rng.uniform(0, 360)), "shadow_confidence": float(rng.random())}
        things.append(thing | {"foreground": rgba})
    return things
