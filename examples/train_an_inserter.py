"""Train CATDiffusion, which paints an object into a hole: four trainings, each from what the last one left.

usage: python examples/train_an_inserter.py RUN FLOW SD15_INPAINTING CLIP_VIT_L_14 OUT [KEY=VALUE ...]

RUN and FLOW are rows with pictures, masks and labels of the objects; the next two are folders of published models, in
the layout of diffusers and transformers. Stopped, the same command goes on. KEY=VALUE changes settings of all four.
"""

import subprocess
import sys

STAGES = (
    "1-inpainter",  # the semantic inpainter predicts what CLIP sees in the whole picture
    "1-adapter",  # the UNet paints by what CLIP sees in the whole picture
    "2-inpainter",  # the semantic inpainter learns what the UNet can paint by
    "2-all",  # both learn
)
if len(sys.argv) < 6 or not all("=" in change for change in sys.argv[6:]):
    sys.exit(__doc__)
run, flow, base, clip, out = sys.argv[1:6]
start: list[str] = []
for stage in STAGES:
    folder = f"{out}/{stage}"
    command = [sys.executable, "-m", "rasura", "remover", "train", run, "--flow", flow, "--preset", "catdiffusion"]
    command += ["--base", base, "--image-encoder", clip, "--out", folder, *start]
    for change in (f"stage={stage}", *sys.argv[6:]):
        command += ["--set", change]
    print(f"{stage}:", flush=True)
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{stage} ended with an error; the same command goes on from its last checkpoint")
    start = ["--from", folder]
