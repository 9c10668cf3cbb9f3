"""Turn before/after pairs of a fixed camera into removal triplets, and look at one.

usage: python examples/pairs_to_triplets.py PAIRS_FOLDER RUN_FOLDER
The folder holds input/ (with the object) and gt/ (without it), with equal file names.
"""

import sys
from pathlib import Path

from PIL import Image

import rasura

RECIPE = """
name: pairs-to-triplets
flows:
  pairs:
    source: {pairs: {path: REPLACED}}
    stages: [pair, effects, segment: {backend: grabcut}, audit, matte, capture]
  captured:
    source: {flow: {of: pairs}}
    stages:
      - select: {keep: {pair_motion: {max: 0.4}, segment_score: {min: 0.5}, audit_evidence: {min: 0.3}}}
dataset: {flows: [captured]}
"""

if len(sys.argv) != 3:
    sys.exit(__doc__)
pairs, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
(folder / "my-recipe.yaml").write_text(RECIPE)
run = rasura.run(folder / "my-recipe.yaml", into=folder / "run", set={"flows.pairs.source.pairs.path": str(pairs)})

for flow in run.status().flows:
    for stage in flow.stages:
        print(flow.flow, stage.stage, "in", stage.inputs, "kept", stage.kept, dict(stage.rejected + stage.failed))
for row in run.table("captured"):
    print(row["origin"], "object", f"{row['mask'].mean():.1%}", "with effects", f"{row['foreground_mask'].mean():.1%}")
    Image.fromarray(row["target"]).save(folder / f"{row['id']}.png")
print("report:", run.report())
