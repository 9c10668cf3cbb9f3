"""Remove the middle of each photograph of a folder with a remover, and look at the result beside it.

usage: python examples/photos_with_remover.py PHOTOS_FOLDER RUN_FOLDER [REMOVER]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import rasura

if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
photos, folder, remover = Path(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or ["telea"])[0]
folder.mkdir(parents=True, exist_ok=True)
paths = sorted(path for path in photos.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
if not paths:
    sys.exit(f"no photographs (.jpg, .png) in {photos}")

for path in paths:
    picture = np.asarray(Image.open(path).convert("RGB"))
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 2, width // 3 : width // 2] = True  # a real one comes from a segmenter or a person
    removed = rasura.remove(picture, mask, remover=remover)
    Image.fromarray(np.hstack([picture, removed])).save(folder / f"{path.stem}.png")
    print(path.name, "changed", f"{(removed != picture).any(-1).mean():.1%}")
