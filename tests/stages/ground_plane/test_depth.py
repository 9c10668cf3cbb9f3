"""Depth networks and depth columns as inverse depth."""

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
)

from rasura.networks.pretrained import quiet
from rasura.networks.weights import BadWeights
from rasura.stages.ground_plane.depth import clip_disparity, compute_work_grid, group_by_shape, inverse_depth, resample
from rasura.stages.ground_plane.depth_anything import DepthAnything, pad_picture
from rasura.stages.ground_plane.depth_networks import open_depth_network
from rasura.stages.ground_plane.depth_onnx import compute_input_size

pytestmark = pytest.mark.torch

SIZES = [(48, 64), (65, 33), (48, 64), (1, 1), (3, 200), (200, 3)]


def pictures(sizes=SIZES):
    """Random pictures, read-only as the engine hands them over."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for one in arrays:
        one.flags.writeable = False
    return arrays


@pytest.fixture(scope="module", params=["relative", "metric"])
def folder(request, tmp_path_factory):
    """A random Depth Anything of 20 thousand parameters with the processor of the published ones, at 70 px."""
    where = tmp_path_factory.mktemp(f"depth-{request.param}")
    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=70,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=request.param,
        max_depth=20,
    )
    model = DepthAnythingForDepthEstimation(config)
    for value in model.parameters():  # as made it gives 0 nearly everywhere, which would prove nothing
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.1)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    with quiet():
        model.save_pretrained(where)
        DPTImageProcessor(
            size={"height": 70, "width": 70},
            keep_aspect_ratio=True,
            ensure_multiple_of=14,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ).save_pretrained(where)
    return where


def test_depth_anything_gives_what_the_library_gives(folder):
    """Same pixels in, same map out as calling transformers by hand with its own processor, to the last bit."""
    model = DepthAnything(folder)
    with quiet():
        by_hand = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
        processor = AutoImageProcessor.from_pretrained(folder)
    for picture in pictures([(48, 64), (65, 33), (90, 71)]):
        inputs = processor(images=[picture.copy()], return_tensors="pt", input_data_format="channels_last")
        with torch.no_grad():
            wanted = by_hand(**inputs).predicted_depth[0].numpy()
        (values,) = model.predict([picture])
        assert np.array_equal(values, wanted)
        assert wanted.std() > 1e-3
        (inverse,) = model.predict_inverse_depth([picture])
        expected = inverse_depth(wanted, 1.0) if model.metric else np.maximum(wanted, 0)
        assert np.array_equal(inverse, expected)
    assert model.metric == (by_hand.config.depth_estimation_type == "metric")


def test_a_batch_gives_what_each_picture_gives_alone(folder):
    """Pictures of any size and in any order, odd, portrait, tiny and thin ones too."""
    model = DepthAnything(folder)
    together = model.predict_inverse_depth(pictures())
    for picture, batched in zip(pictures(), together, strict=True):
        (alone,) = model.predict_inverse_depth([picture])
        assert alone.shape == batched.shape
        assert np.abs(alone - batched).max() <= 1e-5 * max(1.0, float(batched.max()))  # rounding, no more
        assert np.isfinite(batched).all()
        assert (batched >= 0).all()
        wide = resample(batched, (picture.shape[1], picture.shape[0]))
        assert wide.shape == picture.shape[:2]


def test_a_folder_of_something_else_is_refused(tmp_path):
    """No folder, and a folder without a model, are told before a picture is looked at."""
    with pytest.raises(BadWeights):
        open_depth_network("depth-anything", tmp_path, "depth", 1.0, "unit")
    with pytest.raises(ValueError, match="no depth backend"):
        open_depth_network("depth-nothing", tmp_path, "depth", 1.0, "unit")


def test_inverse_depth_knows_units_and_gaps():
    """Millimetres become 1/m; what was not measured is infinitely far; negative depths are a fault."""
    depth = np.array([[0, 500, 2000, 65535]], np.uint16)
    assert inverse_depth(depth, 0.001) == pytest.approx(np.array([[0, 2, 0.5, 1 / 65.535]]), rel=1e-4)
    assert inverse_depth(np.array([[np.nan, np.inf]]), 1.0).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="-3"):
        inverse_depth(np.array([[-3.0]]), 1.0)
    assert clip_disparity(np.array([[-1.0, 0.5, np.nan]])).tolist() == [[0, 0.5, 0]]


def test_grids_keep_the_aspect_and_batches_keep_shapes_apart():
    """The work grid never enlarges, and never falls below 8; shrinking averages; batches hold one shape."""
    assert compute_work_grid((512, 768), 320) == (320, 213)
    assert compute_work_grid((100, 60), 320) == (60, 100)
    assert compute_work_grid((2, 1000), 320) == (320, 8)
    assert resample(np.eye(4, dtype=np.float32), (2, 2)) == pytest.approx(np.eye(2) / 2)
    assert group_by_shape(pictures()) == [[0, 2], [1], [3], [4], [5]]
    thin = pad_picture(np.zeros((3, 200, 3), np.uint8), 5)
    assert thin.shape == (40, 200, 3)


def test_the_onnx_input_is_what_the_network_declares():
    """A fixed input is kept; a free one is near 518 px in whole patches; anything else is refused."""
    assert compute_input_size([1, 3, 192, 636], (512, 768)) == (636, 192)
    assert compute_input_size([1, 3, "h", "w"], (512, 768)) == (784, 518)
    assert compute_input_size(["n", 3, None, None], (1, 4000)) == (2072, 518)
    with pytest.raises(ValueError, match="height, width"):
        compute_input_size([1, 1, 4], (512, 768))


def test_meter_on_a_street(assets):
    """METER (KITTI) sees a road near at the bottom and far above, in plausible metres; any size goes in."""
    network = open_depth_network("depth-onnx", assets / "weights/meter_xxs_kitti_192x636.onnx", "depth", 0.01, "unit")
    assert network.metric
    picture = np.ascontiguousarray(cv2.imread(str(assets / "photos/coco/000000303818.jpg"))[..., ::-1])
    (inverse,) = network.predict_inverse_depth([picture])
    assert inverse.shape == (48, 160)
    near, far = 1 / float(np.median(inverse[44:])), 1 / float(np.median(inverse[16:24]))
    assert 0.3 < near < 5
    assert 2 * near < far < 80
    for one in network.predict_inverse_depth(pictures()):
        assert one.shape == (48, 160)
        assert np.isfinite(one).all()
