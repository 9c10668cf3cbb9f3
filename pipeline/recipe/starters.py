"""Starter recipes of `rasura init`: a commented recipe for each kind of input."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rasura.manifests.errors import RecipeError
from rasura.pipeline.recipe.schema import MOST_LETTERS, NAME


class Starter(NamedTuple):
    """A starter recipe.

    Attributes:
        text: the YAML, with NAME where the name of the recipe is.
        needs: what the user has to put in place before it can be checked.
    """

    text: str
    needs: str


PAIRS = """\
# Pictures of a fixed camera with and without an object become triplets, with the object's shadow and reflection.
# Put the pictures with the object into pairs/input/ and those without it into pairs/gt/, under equal names.
#   rasura check NAME.yaml      says what is missing and what would be done
#   rasura run NAME.yaml        writes runs/NAME; the dataset is in runs/NAME/dataset
# Every stage and its parameters: rasura stages, rasura stages effects
name: NAME
seed: 1 # of everything that is random
vars: {pairs: pairs, licence: unknown} # texts for ${...}; also: --set vars.pairs=FOLDER

flows:
  pairs: # each pair to its masks, its foreground and a triplet
    source: {pairs: {path: "${pairs}", licence: "${licence}", max_side: 1600}}
    stages:
      - pair # both pictures on one grid and exposure; the pair's own noise
      - effects # all that differs beyond that noise: object, shadow, reflection
      - segment: {backend: grabcut} # the object alone; sam-onnx is better and needs weights
      - audit # what speaks against one object with its own effects
      - matte # the foreground as a cut-out
      - capture # the triplet: source, mask, target
      - masks # rough masks beside the exact one, for training
    shard_rows: 4

  captured: # measurements decide; changing a limit makes nothing again
    source: {flow: {of: pairs}}
    stages:
      - select:
          keep:
            pair_motion: {max: 1.0} # px: the camera stood still
            pair_gain_max: {max: 1.3} # both shots have one exposure and one colour space
            effects_area: {max: 0.4} # share of the picture that changed
            segment_score: {min: 0.6} # certainty of the object mask
            audit_evidence: {min: 0.3} # share of the object mask that no shadow explains
            audit_missed: {max: 0.13} # areas of the object mask: parts of the object outside of it
            audit_moving: {max: 0.00035} # share of the picture: leaves or tape that moved between the shots
            audit_outside: {max: 0.02} # areas of the object mask: shadow of what stands outside of the picture
            audit_ghost: {max: 0.001} # share of the picture: beside the object mask, with an outline in gt alone
            audit_residue: {max: 0.035} # share of the object that shines through gt
            audit_cut: {max: 0.4} # square roots of the object's area: hard rim of the change that only gt has
            audit_strange: {max: 2.5, missing: true} # times as strange as around it: gt in the object's place
            audit_second: {max: 0.03} # areas of the object mask: another object that went
            mask_changed: {min: 0.92, missing: true} # of a mask that came with the pair: the share that changed
            effects_left: {max: 25} # grey levels of the strongest part of the object that stays in the target
            capture_seam: {max: 4} # grey levels of the step along the mask's rim in the target
            pair_psnr: {min: 22} # dB where nothing changed: both pictures are whole and of one place
            pair_sharpness: {min: -0.22, max: 0.3} # gt is as sharp as input (log2 of the contrast of its details)
            pair_grain: {min: -0.35} # and was not denoised
            pair_blocks: {max: 0.12} # nor compressed more
            mask_area: {max: 0.4} # share of the picture that the object covers
            capture_detail: {min: -0.25, max: 1} # where the object was, gt has details like those around it
            capture_flat: {max: 0.2} # and is not painted over

splits: {test: 0.1, train: 0.9} # a scene is in one split only
dataset: {flows: [captured]}
"""

CLIP = """\
# A video of a fixed camera becomes triplets: moments with an object, and the same view without it.
# Put videos into clips/. The camera must not move.
#   rasura check NAME.yaml      says what is missing and what would be done
#   rasura run NAME.yaml        writes runs/NAME; the dataset is in runs/NAME/dataset
name: NAME
seed: 1 # of everything that is random
vars: {clips: clips, licence: unknown} # texts for ${...}; also: --set vars.clips=FOLDER

flows:
  moments: # pairs from each clip: a frame with an object, and the empty view
    source: {clip: {path: "${clips}", licence: "${licence}", max_side: 1280, max_pairs: 24}}

  pairs: # each pair to its masks, its foreground and a triplet
    source: {flow: {of: moments}}
    stages:
      - pair # both pictures on one grid and exposure
      - effects # all that differs beyond the noise: object, shadow, reflection
      - segment: {backend: grabcut} # the object alone; sam-onnx is better and needs weights
      - audit # what speaks against one object with its own effects
      - matte
      - capture # the triplet: source, mask, target
      - masks # rough masks beside the exact one, for training
    shard_rows: 2

  captured: # measurements decide; changing a limit makes nothing again
    source: {flow: {of: pairs}}
    stages:
      - select:
          keep:
            pair_motion: {max: 1.0} # px: the camera may be hand-held a little
            pair_gain_max: {max: 1.3} # both shots have one exposure and one colour space
            effects_area: {max: 0.4} # share of the picture that changed
            segment_score: {min: 0.5} # certainty of the object mask
            audit_evidence: {min: 0.3} # share of the object mask that no shadow explains
            audit_missed: {max: 0.13} # areas of the object mask: parts of the object outside of it
            audit_moving: {max: 0.00035} # share of the picture: leaves or tape that moved between the shots
            audit_outside: {max: 0.02} # areas of the object mask: shadow of what stands outside of the picture
            audit_ghost: {max: 0.001} # share of the picture: beside the object mask, with an outline in gt alone
            audit_residue: {max: 0.035} # share of the object that shines through gt
            audit_cut: {max: 0.4} # square roots of the object's area: hard rim of the change that only gt has
            audit_strange: {max: 2.5, missing: true} # times as strange as around it: gt in the object's place
            audit_second: {max: 0.03} # areas of the object mask: another object that went
            effects_left: {max: 25} # grey levels of the strongest part of the object that stays in the target
            capture_seam: {max: 4} # grey levels of the step along the mask's rim in the target
            pair_psnr: {min: 22} # dB where nothing changed: both pictures are whole and of one place
            mask_area: {max: 0.4} # share of the picture that the object covers
            capture_detail: {min: -0.25, max: 1} # where the object was, gt has details like those around it
            capture_flat: {max: 0.2} # and is not painted over

splits: {test: 0.1, train: 0.9} # a scene is in one split only
dataset: {flows: [captured]}
"""

PHOTOS = """\
# Objects in photographs are detected and removed by today's removers: candidates, which people judge.
# Put pictures into photos/ and a YOLOX network in ONNX form at weights/yolox.onnx (docs/recipes.md says where from).
#   rasura check NAME.yaml      says what is missing and what would be done
#   rasura run NAME.yaml        writes runs/NAME
#   rasura review runs/NAME     lets people accept or reject the candidates
name: NAME
seed: 1 # of everything that is random
vars: {photos: photos, licence: unknown, detector: weights/yolox.onnx} # texts for ${...}; also: --set vars.photos=…

flows:
  objects: # a row for each object that is detected
    source: {photos: {path: "${photos}", licence: "${licence}", max_side: 1024}}
    stages:
      - detect: {weights: "${detector}"}
    shard_rows: 4

  chosen:
    source: {flow: {of: objects}}
    stages:
      - select: {keep: {detect_score: {min: 0.5}}}

  candidates: # one for each remover
    source: {flow: {of: chosen}}
    stages:
      - segment: {backend: grabcut} # the object mask; sam-onnx is better and needs weights
      - inpaint:
          removers: [telea, ns] # OpenCV's; networks: docs/recipes.md
          dilation: 8 # px by which the mask grows before it is filled
    shard_rows: 4

splits: {test: 0.1, train: 0.9} # a scene is in one split only
review: {votes: 1} # how people judge: `rasura review`. What nobody has accepted is a candidate, and in no dataset
"""

LOOP = """\
# RORem's loop: a remover makes candidates, people accept or reject them, a discriminator learns from the votes and
# decides on many more, and a better remover is trained on what was accepted.
# Run the recipe of `rasura init` first, so that runs/pairs is there: it has the triplets that the loop starts from.
# The numbers below need about 100 scenes, some of them in the split test; for fewer, lower `limit` and `count`.
#   rasura check NAME.yaml      counts the rows, and says what is missing and what would be done
#   rasura loop NAME.yaml       stops where a human round waits for votes, and continues when they are in
name: NAME
seed: 1 # of everything that is random
vars: {run: runs/pairs} # texts for ${...}; also: --set vars.run=FOLDER

test: [{run: "${run}", flow: captured, split: test}] # triplets with a true target that no round uses
initial: [{run: "${run}", flow: captured, split: train, limit: 40}] # triplets to start from
pool: [{run: "${run}", flow: captured, split: train}] # scenes that rounds draw: those in neither of the above
removers: [telea, ns] # beside the one in training
remover:
  preset: tiny # from nothing, on a CPU; sdxl needs `base`, the folder of SDXL-inpainting
  steps: 2000 # of the first training
  tune_steps: 1000 # after each round
discriminator:
  preset: tiny
  precision_target: 0.9 # share of the accepted candidates that a person would accept
  confidence: 0.95
rounds:
  - {kind: human, count: 30} # scenes whose candidates people judge; a threshold that holds takes some hundred votes
  - {kind: auto, count: 100} # or as many as the pool has left
keep: precision_target # what joins the training set; everything, humans and nothing are controls
reviewers: people # oracle: the ground-truth reviewer, a program that compares with the truth, for experiments
votes: 1 # a candidate of a human round needs
"""

STARTERS: Mapping[str, Starter] = {
    "pairs": Starter(PAIRS, "pairs/input and pairs/gt"),
    "clip": Starter(CLIP, "videos in clips/"),
    "photos": Starter(PHOTOS, "pictures in photos/ and weights/yolox.onnx"),
    "loop": Starter(LOOP, "the run runs/pairs, about 100 scenes"),
}


def write_starter(folder: Path, name: str, kind: str, force: bool = False) -> tuple[Path, str]:
    """Write a starter recipe.

    Args:
        folder: where to.
        name: of the recipe; a file name with `.yaml` is allowed.
        kind: one of `STARTERS`.
        force: overwrite a file of this name.

    Returns:
        The file, and what the user has to put in place.

    Raises:
        RecipeError: the name cannot be one, or the file is there already, or is a folder.
    """
    file = folder / f"{name.removesuffix('.yaml')}.yaml"
    if not re.fullmatch(NAME, name.removesuffix(".yaml")):
        raise RecipeError(
            f"'{name}' cannot be the name of a recipe: letters, digits, _ and - only, {MOST_LETTERS} at most, "
            f"for example my-{kind}"
        )
    if file.is_dir():
        raise RecipeError(f"'{file}' is a folder: choose another name for the recipe")
    if file.exists() and not force:
        raise RecipeError(f"'{file}' is there already: choose another name, or overwrite it with --force")
    starter = STARTERS[kind]
    file.write_text(starter.text.replace("NAME", file.stem), encoding="utf-8")
    return file, starter.needs
