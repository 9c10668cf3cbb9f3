"""Removers and the wrapper that they share."""

import numpy as np
import pytest

from rasura.removers import opencv, tiny
from rasura.removers.base import (
    Capability,
    NoContext,
    NothingToFill,
    Remover,
    compute_crop_window,
    compute_feather,
    dilate,
    remove,
)
from rasura.removers.registry import NETWORKS, REMOVERS
from rasura.stages.inpaint import Inpaint, InpaintParams
from rasura.stages.stage import InvalidValues, Kept, Rejected


def photo(height=200, width=300, seed=0):
    """A ramp with grain."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] + np.linspace(-20, 20, height)[:, None, None]
    picture = np.clip(ramp + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def block(shape, y0, y1, x0, x1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    mask.flags.writeable = False
    return mask


class Paints:
    """Fills with one colour that depends on the seed, at a native size, and remembers what it was given."""

    name = "paints"

    def __init__(self, native=None):
        self.capability = Capability("remover", native, False, "CC0")
        self.calls = []

    def weights(self):
        return {}

    def setup(self):
        pass

    def fill(self, pictures, holes, seeds):
        self.calls.append((pictures, holes, seeds))
        return [np.full_like(picture, 10 + seed) for picture, seed in zip(pictures, seeds, strict=True)]


@pytest.mark.parametrize("make", [opencv.telea, opencv.ns])
def test_opencv_takes_an_object_out_of_a_smooth_scene(make):
    """A bright block on a ramp is gone, its place continues the ramp, and everything else is bit-exact."""
    clean = photo()
    mask = block(clean.shape[:2], 80, 120, 130, 170)
    picture = np.where(mask[..., None], 255, clean).astype(np.uint8)
    (out,) = remove(make(), [picture], [mask], [0], dilation=4)
    assert isinstance(make(), Remover)
    assert np.abs(out.astype(int) - clean)[mask].mean() < 8
    outside = ~dilate(mask, 4)
    assert np.array_equal(out[outside], picture[outside])


@pytest.mark.parametrize("native", [None, 64, 512])
@pytest.mark.parametrize("where", [(0, 5, 0, 5), (190, 200, 290, 300), (80, 120, 130, 170), (1, 199, 60, 240)])
def test_outside_the_hole_nothing_changes_whatever_the_native_size(native, where):
    """In corners, in the middle and for holes nearly as high as the picture; the mask itself is filled to the full."""
    picture = photo()
    mask = block(picture.shape[:2], *where)
    (out,) = remove(Paints(native), [picture], [mask], [5], dilation=3)
    outside = ~dilate(mask, 3)
    assert np.array_equal(out[outside], picture[outside])
    assert (out[mask] == 15).all()
    assert out.shape == picture.shape


def test_a_remover_sees_its_native_size_and_true_means_hole():
    """Crops come at the native square, uint8, with a bool hole that is True where the object was, dilation included."""
    remover = Paints(128)
    picture = photo()
    mask = block(picture.shape[:2], 80, 120, 130, 170)
    remove(remover, [picture, picture], [mask, mask], [1, 2], dilation=6, context=0.5)
    pictures, holes, seeds = remover.calls[0]
    assert [p.shape for p in pictures] == [(128, 128, 3)] * 2
    assert all(p.dtype == np.uint8 for p in pictures)
    assert all(h.dtype == np.bool_ for h in holes)
    assert 0.1 < holes[0].mean() < 0.5
    assert holes[0][64, 64]
    assert not holes[0][0, 0]
    assert seeds == [1, 2]


def test_batches_and_single_pictures_give_the_same():
    """What else is in the batch changes nothing."""
    pictures = [photo(seed=k) for k in range(3)]
    masks = [block(pictures[0].shape[:2], 20 * k, 20 * k + 40, 50, 90) for k in range(3)]
    together = remove(opencv.telea(), pictures, masks, [0, 1, 2])
    alone = [remove(opencv.telea(), [p], [m], [k])[0] for k, (p, m) in enumerate(zip(pictures, masks, strict=True))]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


def test_empty_and_total_masks_are_named():
    """An empty mask and one that leaves nothing to continue are errors of their own; so are wrong types and shapes."""
    picture = photo()
    empty, full = np.zeros((200, 300), bool), np.ones((200, 300), bool)
    with pytest.raises(NothingToFill):
        remove(opencv.telea(), [picture], [empty], [0])
    with pytest.raises(NoContext, match="grown by 8 px"):
        remove(opencv.telea(), [picture], [full], [0])
    with pytest.raises(ValueError, match="uint8"):
        remove(opencv.telea(), [picture.astype(float)], [block((200, 300), 1, 5, 1, 5)], [0])
    with pytest.raises(ValueError, match="bool"):
        remove(opencv.telea(), [picture], [block((200, 300), 1, 5, 1, 5).astype(np.uint8)], [0])
    with pytest.raises(ValueError, match=r"\(9, 9\)"):
        remove(opencv.telea(), [picture], [np.ones((9, 9), bool)], [0])


def test_a_remover_that_returns_rubbish_is_named():
    """Wrong size, type or number of results is the remover's fault and says so."""

    class Wrong(Paints):
        def fill(self, pictures, holes, seeds):
            return [picture.astype(np.float32) for picture in pictures]

    class Few(Paints):
        def fill(self, pictures, holes, seeds):
            return []

    picture, mask = photo(), block((200, 300), 80, 120, 130, 170)
    with pytest.raises(ValueError, match="'paints' returned"):
        remove(Wrong(), [picture], [mask], [0])
    with pytest.raises(ValueError, match="0 pictures for 1"):
        remove(Few(), [picture], [mask], [0])


def test_every_remover_describes_itself():
    """Name, role, steps, licence and whether it reads weights are in the capability of every remover of a recipe."""
    for create in REMOVERS.values():
        capability = create().capability
        assert (capability.name, capability.role, capability.needs_weights) == ("OpenCV", "remover", False)
        assert capability.steps is None
    capabilities = {name: network.capability for name, network in NETWORKS.items()}
    assert {name: (one.name, one.role, one.native_size, one.steps) for name, one in capabilities.items()} == {
        "tiny": ("tiny", "remover", 64, 1),
        "lama": ("LaMa", "remover", 512, 1),
        "migan": ("MI-GAN", "remover", 512, 1),
        "pixelhacker": ("PixelHacker", "remover", 512, 20),
        "moebius": ("Moebius", "remover", 512, 20),
        "sdxl-inpaint": ("SDXL-inpainting", "inserter", 1024, 50),
        "sd15": ("Stable Diffusion 1.5 inpainting", "inserter", 512, 50),
        "rorem": ("RORem", "remover", 512, 50),
        "rorem-lcm": ("RORem", "remover", 512, 4),
        "objectclear": ("ObjectClear", "remover", 512, 20),
        "powerpaint": ("PowerPaint", "remover", 640, 45),
        "powerpaint-v2": ("PowerPaint v2", "remover", 640, 45),
        "brushnet": ("BrushNet", "inserter", 512, 50),
        "brushnet-xl": ("BrushNet XL", "inserter", 1024, 50),
        "catdiffusion": ("CATDiffusion", "inserter", 512, 50),
        "diffusers": ("pipeline of diffusers", "inserter", 1024, None),
        "image-edits": ("image edits by HTTP", "inserter", 1024, None),
        "comfyui": ("ComfyUI workflow", "remover", 1024, None),
    }
    of_any_size = {"image-edits", "comfyui", "diffusers", "tiny"}
    assert {name for name, one in capabilities.items() if not (one.needs_weights and one.parameters)} == of_any_size
    assert all(one.licence for one in capabilities.values())
    assert [name for name, one in capabilities.items() if one.effects or one.non_commercial] == ["objectclear"]
    assert (tiny.CAPABILITY.name, tiny.CAPABILITY.steps, tiny.CAPABILITY.needs_weights) == ("tiny", 1, True)


def test_windows_hold_the_hole_and_stay_in_the_picture():
    """The crop contains the hole with context, is square where the picture allows, and never leaves it."""
    for where in ((0, 3, 0, 3), (100, 110, 290, 300), (0, 200, 0, 10), (50, 51, 0, 300)):
        hole = block((200, 300), *where)
        x0, y0, x1, y1 = compute_crop_window(hole, 0.75)
        assert 0 <= x0 < x1 <= 300
        assert 0 <= y0 < y1 <= 200
        assert hole[y0:y1, x0:x1].sum() == hole.sum()
        assert x1 - x0 == y1 - y0 or y1 - y0 == 200


def test_the_feather_lies_in_the_ring_only():
    """Weight 1 on the object, something between in the ring around it, 0 outside the hole."""
    mask = block((60, 60), 25, 35, 25, 35)
    hole = dilate(mask, 8)
    weight = compute_feather(mask, hole, 8)
    assert (weight[mask] == 1).all()
    assert (weight[~hole] == 0).all()
    ring = weight[hole & ~mask]
    assert 0 < ring.min() < 0.3
    assert np.array_equal(compute_feather(mask, mask, 0), mask.astype(np.float32))


def test_inpaint_makes_a_candidate_for_each_remover():
    """Ids, columns and pixels of the children are as the contract says; the photo's other columns stay."""
    picture, mask = photo(), block((200, 300), 80, 120, 130, 170)
    stage = Inpaint(InpaintParams(removers=("telea", "ns"), dilation=5))
    stage.setup()
    record = {"id": "p.00", "source": picture, "object_mask": mask, "label": "dog", "licence": "CC0"}
    (outcome,) = stage.process([record])
    assert isinstance(outcome, Kept)
    assert [r["id"] for r in outcome.records] == ["p.00.telea", "p.00.ns"]
    for child in outcome.records:
        assert child["kind"] == "edited"
        assert child["label"] == "dog"
        assert child["remover"] in ("telea", "ns")
        assert child["hole_dilation"] == 5
        assert "object_mask" not in child
        assert np.array_equal(child["mask"], mask)
        outside = ~dilate(mask, 5)
        assert np.array_equal(child["target"][outside], picture[outside])
    assert not np.array_equal(outcome.records[0]["target"], outcome.records[1]["target"])


def test_inpaint_rejects_what_cannot_be_filled_and_refuses_unknown_removers():
    """A mask of nothing or of everything is a judgement; a remover that does not exist is an error before the run."""
    stage = Inpaint(InpaintParams())
    everything = {"id": "a", "source": photo(), "object_mask": np.ones((200, 300), bool)}
    fine = everything | {"id": "b", "object_mask": block((200, 300), 80, 120, 130, 170)}
    nothing = everything | {"id": "c", "object_mask": np.zeros((200, 300), bool)}
    covered, kept, empty = stage.process([everything, fine, nothing])
    assert isinstance(covered, Rejected)
    assert covered.reason == "mask covers the picture"
    assert isinstance(empty, Rejected)
    assert empty.reason == "empty mask"
    assert isinstance(kept, Kept)
    assert [child["id"] for child in kept.records] == ["b.telea"]
    with pytest.raises(InvalidValues, match="no remover called magic; there are ns, telea, and under `models`"):
        InpaintParams(removers=("magic",))
    with pytest.raises(InvalidValues, match="named twice"):
        InpaintParams(removers=("ns", "ns"))
    with pytest.raises(InvalidValues, match="'rorem' needs weights"):
        InpaintParams(removers=("rorem",))
    with pytest.raises(InvalidValues, match="not among `removers`"):
        InpaintParams(models={"rorem": {"base": "x"}})
    with pytest.raises(InvalidValues, match="needs a `kind`"):
        InpaintParams(removers=("mine",), models={"mine": {"base": "x"}})
    with pytest.raises(ValueError, match="there is no file or folder"):
        Inpaint(InpaintParams(removers=("sdxl-inpaint",), models={"sdxl-inpaint": {"base": "nowhere/at/all"}}))
