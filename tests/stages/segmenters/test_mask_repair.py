"""A mask that is wrong in one of several ways is repaired by a few clicks and strokes, as a person would make them."""

import cv2
import numpy as np
import pytest
from conftest import ROOT

from rasura.manifests.images import RGB, Mask
from rasura.stages.segmenters.repair import MaskRepair, apply_click, prompt_click, snap_outline
from rasura.stages.segmenters.sam import Embedding, Floats

PAIRS = ROOT / "tests" / "data" / "pictures" / "pairs"
DAMAGES = ("bite", "blob", "half", "swollen", "shrunk")


def load_pairs() -> list[tuple[RGB, Mask]]:
    """Two photographs with the masks of their objects, at 0.7 of their size."""
    found = []
    for name in ("cars/cardet_0200", "person/onebyone_0188"):
        picture = cv2.imread(str(PAIRS / f"{name}_input.png"))[..., ::-1]
        mask = cv2.imread(str(PAIRS / f"{name}_mask.png"), 0)
        picture, mask = (
            cv2.resize(pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA) for pixels in (picture, mask)
        )
        found.append((np.ascontiguousarray(picture), mask > 127))
    return found


def compute_iou(first: Mask, second: Mask) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


def damage(mask: Mask, kind: str, seed: int) -> Mask:
    """Damage a mask until its IoU is about 0.8."""
    random = np.random.default_rng(seed)
    rows, columns = np.nonzero(mask)
    at = random.integers(len(rows))
    rim = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)[:, 0]
    corner = rim[random.integers(len(rim))]
    damaged = mask
    for step in range(2, 400):
        pixels = mask.astype(np.uint8)
        match kind:
            case "bite":
                cv2.circle(pixels, (int(columns[at]), int(rows[at])), step, 0, -1)
            case "blob":
                cv2.circle(pixels, (int(corner[0]), int(corner[1])), step, 1, -1)
            case "half":
                pixels[: rows.min() + step] = 0
            case "swollen" | "shrunk":
                change = cv2.dilate if kind == "swollen" else cv2.erode
                pixels = change(pixels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step - 3, 2 * step - 3)))
        damaged = pixels > 0
        if compute_iou(damaged, mask) <= 0.8:
            break
    return damaged


def repair(picture: RGB, mask: Mask, truth: Mask) -> tuple[Mask, int]:
    """Repair a mask as somebody who sees the picture: the largest error first, by a click; where that does not help it
    is undone and painted over. Returns the mask, and the actions that it took, an undo among them."""
    actions = 0
    while compute_iou(mask, truth) < 0.95 and actions < 20:
        error = mask ^ truth
        depth = cv2.distanceTransform(np.pad(error.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        _, labels = cv2.connectedComponents(error.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = labels == sizes.argmax()
        inside = np.where(largest, depth, 0)
        y, x = (int(at) for at in np.unravel_index(int(inside.argmax()), inside.shape))
        is_thin = depth.max() < 0.08 * np.sqrt(truth.sum())
        if is_thin and not actions:
            changed = snap_outline(picture, mask, 1.5 * float(depth.max()) + 2)
        else:
            rows, columns = np.nonzero(largest)
            reach = float(np.hypot(rows - y, columns - x).max()) * 1.05 + 2
            changed = apply_click(picture, mask, x, y, bool(truth[y, x]), reach)
        actions += 1
        if compute_iou(changed, truth) < compute_iou(mask, truth) + 0.005:
            radius = max(3, int(0.9 * depth[y, x]))
            stroke = cv2.dilate(
                (inside >= 0.55 * depth[y, x]).astype(np.uint8),
                cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)),
            )
            changed = (mask | (stroke > 0)) if truth[y, x] else (mask & ~(stroke > 0))
            actions += 2  # the undo, and the stroke
        mask = changed
    return mask, actions


def test_few_actions_repair_a_mask() -> None:
    """From an IoU of 0.8 to 0.95 on ten masks: a median of six actions at most."""
    actions = []
    for picture, truth in load_pairs():
        for seed, kind in enumerate(DAMAGES):
            damaged = damage(truth, kind, seed)
            assert 0.7 < compute_iou(damaged, truth) < 0.83, kind
            repaired, count = repair(picture, damaged, truth)
            assert compute_iou(repaired, truth) >= 0.95, kind
            actions.append(count)
    assert len(actions) == 10
    assert np.median(actions) <= 6


def test_a_click_changes_what_is_near() -> None:
    """A click reaches no further than its radius, adds or takes away and never both, the same twice is the same, and
    where nothing is to be changed nothing is."""
    picture, truth = load_pairs()[0]
    rows, columns = np.ogrid[: truth.shape[0], : truth.shape[1]]
    y, x = (int(values[len(values) // 2]) for values in np.nonzero(truth))
    far = np.hypot(rows - y, columns - x) > 40
    added = apply_click(picture, np.zeros_like(truth), x, y, True, 40)
    assert added[y, x]
    assert not (added & far).any()
    removed = apply_click(picture, np.ones_like(truth), x, y, False, 40)
    assert not removed[y, x]
    assert removed[far].all()
    assert (apply_click(picture, np.zeros_like(truth), x, y, True, 40) == added).all()
    assert apply_click(picture, added, x, y, True, 40) is added
    for mask in (np.zeros_like(truth), np.ones_like(truth)):
        assert (snap_outline(picture, mask, 5) == mask).all()
    for corner in ((0, 0), (truth.shape[1] - 1, truth.shape[0] - 1)):
        assert apply_click(picture, truth, *corner, not truth[corner[::-1]], 9).shape == truth.shape


class Oracle:
    """A segmenter that knows the object, and offers it beside everything."""

    def __init__(self, truth: Mask) -> None:
        self.truth, self.encoded, self.prompts = truth, 0, list[tuple[Floats, Floats]]()

    def encode(self, picture: RGB, region: object = None) -> Embedding:
        self.encoded += 1
        return Embedding(None, picture.shape[1], picture.shape[0])

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        self.prompts.append((points, labels))
        masks = np.stack([self.truth, np.ones_like(self.truth)]) - 0.5
        return masks.astype(np.float32), np.array([0.9, 0.99], np.float32)

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        raise AssertionError("a click is ambiguous")


@pytest.mark.parametrize("add", [True, False])
def test_a_network_answers_clicks(add: bool) -> None:
    """With a network the picture is encoded once, the click is a point of its own, and of the network's masks the one
    counts that agrees with the present one."""
    picture, truth = load_pairs()[1]
    oracle = Oracle(truth)
    repairer = MaskRepair(lambda: oracle)
    start = damage(truth, "half" if add else "blob", 3)
    y, x = (int(values[len(values) // 2]) for values in np.nonzero(start ^ truth))
    for _ in range(2):
        repaired = repairer.click("one", picture, start, x, y, add, 1e4)
        assert compute_iou(repaired, truth) > compute_iou(start, truth)
    assert oracle.encoded == 1
    points, labels = oracle.prompts[0]
    assert labels[points.tolist().index([x, y])] == (1 if add else 0)
    near = prompt_click(oracle, Embedding(None, 1, 1), start, x, y, add, 2)
    assert (near ^ start).sum() <= 13
