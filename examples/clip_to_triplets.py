"""Turn a clip of a fixed camera into removal triplets: the empty scene and the moments with an object are found.

usage: python examples/clip_to_triplets.py CLIP RUN_FOLDER
"""

import sys
from pathlib import Path

import rasura

RECIPE = """
name: clip-to-triplets
flows:
  moments:
    source: {clip: {path: REPLACED}}
    shard_rows: 1
  pairs:
    source: {flow: {of: moments}}
    stages: [pair, effects, segment: {backend: grabcut}, audit, matte, capture]
  captured:
    source: {flow: {of: pairs}}
    stages:
      - select: {keep: {pair_motion: {max: 0.6}, segment_score: {min: 0.3}, audit_evidence: {min: 0.3}}}
dataset: {flows: [captured]}
"""

if len(sys.argv) != 3:
    sys.exit(__doc__)
clip, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
(folder / "my-recipe.yaml").write_text(RECIPE)
run = rasura.run(
    folder / "my-recipe.yaml", into=folder / "run", set={"flows.moments.source.clip.path": str(clip)}, quiet=False
)
print(len(run.table("moments")), "moments with an object,", len(run.table("captured")), "triplets")
print(run.table("captured").to_pandas()[["id", "pair_motion", "segment_score"]])
