"""Define a stage of your own that measures sharpness. usage: python examples/sharpness.py PHOTOS_FOLDER RUN_FOLDER"""

import sys
from pathlib import Path

import cv2

import rasura

RECIPE = """
name: sharp
flows:
  photos:
    source: {photos: {path: REPLACED}}
    stages: [sharpness:Sharpness]
  chosen: {source: {flow: {of: photos}}, stages: [select: {keep: {sharpness: {min: 100}}}]}
"""


class Sharpness(rasura.Stage):
    """Measure the variance of the Laplacian; `select` decides later."""

    name = "sharpness:Sharpness"
    needs = {"source": rasura.Kind.RGB}
    gives = {"sharpness": rasura.Kind.FLOAT}

    def process_one(self, record):
        laplacian = cv2.Laplacian(cv2.cvtColor(record["source"], cv2.COLOR_RGB2GRAY), cv2.CV_64F)
        return rasura.Kept([{**record, "sharpness": float(laplacian.var())}])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    recipe = Path(sys.argv[2]).with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE)
    run = rasura.run(recipe, into=sys.argv[2], set={"flows.photos.source.photos.path": sys.argv[1]})
    print(run.table("photos").to_pandas()[["origin", "sharpness"]], "\nkept:", len(run.table("chosen")))
