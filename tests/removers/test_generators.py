"""LaMa and MI-GAN: equal to the authors' networks, from every published kind of file, and nothing of a hole shows."""

from pathlib import Path

import numpy as np
import pytest

from rasura.manifests.errors import WeightsError
from rasura.networks.archive import read_archive
from rasura.removers.base import remove
from rasura.removers.generators.generator import GeneratorOptions
from rasura.removers.generators.lama import Lama
from rasura.removers.generators.migan import Migan

pytestmark = pytest.mark.torch
RUNS = Path(__file__).parents[1] / "data" / "network_runs"
"""One run each of the authors' classes with random weights (`lama`: 1 block of 4 features, 40 x 32 px; `migan`: 32 px,
8 channels), made on a CPU in float32 outside of this project: weights, inputs and output."""
OPTIONS = {"lama": GeneratorOptions(size=64), "migan": GeneratorOptions(size=32)}
KINDS = {"lama": Lama, "migan": Migan}


def load_run(name):
    """Load a stored run: its tensors, and the weights among them by their published names."""
    from safetensors.torch import load_file

    run = load_file(RUNS / f"{name}-run.safetensors")
    weights = {key.removeprefix("weights."): run.pop(key) for key in list(run) if key.startswith("weights.")}
    return run, weights


def save_weights(name, folder, form="safetensors"):
    """Save the stored weights in a published kind of file."""
    import torch
    from safetensors.torch import save_file

    _, weights = load_run(name)
    if form == "safetensors":
        path = folder / f"{name}.safetensors"
        save_file(weights, path)
    elif form == "checkpoint":  # a trainer's, with objects of its own beside the tensors
        path = folder / f"{name}.ckpt"
        named = {f"generator.{key}" if name == "lama" else key: value for key, value in weights.items()}
        state = named | {"discriminator.weight": torch.zeros(2)}
        state = state if name == "lama" else named
        torch.save({"state_dict": state, "callbacks": {Callback: Callback()}} if name == "lama" else state, path)
    else:
        path = folder / f"{name}.pt"
        torch.jit.trace(wrap_network(name, weights), make_input(name), strict=False).save(str(path))
    return path


class Callback:
    """An object that a checkpoint keeps beside its tensors."""

    def __init__(self):
        self.best = 0.5


def build_network(name, weights):
    from rasura.networks.inpainting.lama import LamaGenerator, infer_lama_shape
    from rasura.networks.inpainting.migan import MiganGenerator, infer_migan_shape

    construct, infer = {"lama": (LamaGenerator, infer_lama_shape), "migan": (MiganGenerator, infer_migan_shape)}[name]
    net = construct(**infer(weights))
    net.load_state_dict(weights)
    return net.eval()


def make_input(name):
    run, _ = load_run(name)
    return (run["image"], run["mask"]) if name == "lama" else (join_input(name, run),)


def join_input(name, run):
    """The network's input of four channels."""
    import torch

    if name == "lama":
        return torch.cat([run["image"] * (1 - run["mask"]), run["mask"]], 1)
    return torch.cat([run["known"] - 0.5, run["image"] * run["known"]], 1)


def wrap_network(name, weights):
    """A network as its authors trace it: LaMa's within two modules that compose picture and fill."""
    import torch

    net = build_network(name, weights)
    if name == "migan":
        return net

    class Composing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = net

        def forward(self, image, mask):
            return mask * self.generator(torch.cat([image * (1 - mask), mask], 1)) + (1 - mask) * image

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Composing()

        def forward(self, image, mask):
            return self.model(image, mask)

    return Outer().eval()


def make_picture(seed=0, shape=(90, 120)):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (*shape, 3), np.uint8)
    mask = np.zeros(shape, bool)
    mask[30:52, 40:70] = True
    return picture, mask


@pytest.mark.parametrize("name", KINDS)
def test_a_network_is_that_of_its_authors(name):
    import torch

    run, weights = load_run(name)
    with torch.inference_mode():
        output = build_network(name, weights)(join_input(name, run))
    if name == "lama":
        output = run["mask"] * output + (1 - run["mask"]) * run["image"]
    assert float((output - run["output"]).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("name", "arguments", "tensors", "parameters"),
    [
        ("lama", {"blocks": 18}, 989, 50_975_875),
        ("lama", {"blocks": 9}, 521, 27_048_835),
        ("migan", {"side": 512}, 177, 5_973_366),
        ("migan", {"side": 256}, 154, 5_943_617),
    ],
)
def test_full_size_networks_have_the_published_numbers_of_tensors_and_parameters(name, arguments, tensors, parameters):
    import torch

    from rasura.networks.inpainting.lama import LamaGenerator
    from rasura.networks.inpainting.migan import MiganGenerator

    with torch.device("meta"):
        net = {"lama": LamaGenerator, "migan": MiganGenerator}[name](**arguments)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", ["safetensors", "checkpoint", "torchscript"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_fill(name, form, tmp_path):
    picture, mask = make_picture()
    fills = []
    for kind in ("safetensors", form):
        remover = KINDS[name](name, save_weights(name, tmp_path, kind), OPTIONS[name])
        remover.setup()
        fills.append(remove(remover, [picture], [mask], [0])[0])
    assert (fills[0] == fills[1]).all()
    assert (fills[0][mask] != picture[mask]).any()


@pytest.mark.parametrize("name", KINDS)
def test_the_fill_depends_on_the_surroundings_alone(name, tmp_path):
    remover = KINDS[name](name, save_weights(name, tmp_path), OPTIONS[name])
    remover.setup()
    picture, mask = make_picture()
    other = picture.copy()
    other[mask] = 255 - other[mask]
    hole = np.zeros((32, 32), bool) if name == "migan" else np.zeros((52, 75), bool)
    hole[8:20, 10:24] = True
    crops = [picture[: hole.shape[0], : hole.shape[1]], picture[-hole.shape[0] :, -hole.shape[1] :]]
    changed = [crop.copy() for crop in crops]
    for crop in changed:
        crop[hole] = 255 - crop[hole]
    together = remover.fill(crops, [hole, hole], [0, 1])
    for crop, other_crop, fill in zip(crops, changed, together, strict=True):
        assert (fill == remover.fill([other_crop], [hole], [5])[0]).all()
        assert (fill[~hole] == crop[~hole]).all()
    assert (remove(remover, [other], [mask], [0])[0][mask] == remove(remover, [picture], [mask], [0])[0][mask]).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_network_is_refused_in_one_sentence(name, tmp_path):
    import torch
    from safetensors.torch import save_file

    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    empty, text, missing = tmp_path / "empty.pt", tmp_path / "text.ckpt", tmp_path / "missing.pt"
    torch.save({"step": 3}, empty)
    text.write_text("no archive")
    for path, reason in ((foreign, "another network"), (empty, "holds no tensors"), (text, "no archive of torch")):
        with pytest.raises(WeightsError, match=reason):
            KINDS[name](name, path, OPTIONS[name]).setup()
    with pytest.raises(WeightsError, match="there is no file"):
        KINDS[name](name, missing, OPTIONS[name]).weights()


def test_a_network_of_another_size_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="32 px, not 512: set `size: 32`"):
        Migan("migan", save_weights("migan", tmp_path), GeneratorOptions(size=512)).setup()


def test_an_archive_is_read_without_importing_what_it_names(tmp_path):
    import pickle
    import zipfile

    marker = tmp_path / "marker"

    class Attack:
        def __reduce__(self):
            return (Path.write_text, (marker, "run"))

    path = tmp_path / "attack.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("attack/data.pkl", pickle.dumps({"state_dict": {"a": Attack()}}))
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_archive(path)
    assert not marker.exists()


def test_a_compressed_archive_is_refused(tmp_path):
    import pickle
    import zipfile

    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({"state_dict": "0" * 100_000}))
    with pytest.raises(WeightsError, match="tensors are compressed"):
        read_archive(path)


def test_a_pipeline_whose_mask_comes_first_is_refused(tmp_path):
    def build(helper):
        return [helper.make_node("Identity", ["image"], ["result"])], []

    path = tmp_path / "other.onnx"
    save_onnx(path, [("mask", "uint8", [1, 1, None, None]), ("image", "uint8", [1, 3, None, None])], build)
    with pytest.raises(WeightsError, match="is no MI-GAN: its inputs are"):
        Migan("migan", path, GeneratorOptions(size=64)).setup()


def save_onnx(path, inputs, expression):
    """Save an ONNX network: `expression` builds its nodes, the last of which gives `result`."""
    import onnx
    from onnx import TensorProto, helper

    types = {"float": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    values = [helper.make_tensor_value_info(name, types[kind], shape) for name, kind, shape in inputs]
    kind = types[inputs[0][1]]
    result = helper.make_tensor_value_info("result", kind, [1, 3, None, None])
    nodes, constants = expression(helper)
    graph = helper.make_graph(nodes, "net", values, [result], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def compose_scaled(scale):
    """A graph (picture + mask / 2) * scale: the known pixels as they were, the hole grey."""

    def build(helper):
        constants = [
            helper.make_tensor("scale", 1, [1], [scale]),
            helper.make_tensor("half", 1, [1], [0.5]),
        ]
        nodes = [
            helper.make_node("Mul", ["mask", "half"], ["fill"]),
            helper.make_node("Add", ["image", "fill"], ["sum"]),
            helper.make_node("Mul", ["sum", "scale"], ["result"]),
        ]
        return nodes, constants

    return build


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_lama_in_onnx_returns_values_up_to_one_or_255(scale, tmp_path):
    path = tmp_path / "lama.onnx"
    shape = [("image", "float", [1, 3, None, None]), ("mask", "float", [1, 1, None, None])]
    save_onnx(path, shape, compose_scaled(scale))
    remover = Lama("lama", path, GeneratorOptions(size=64))
    remover.setup()
    picture, mask = make_picture()
    hole = mask[:64, :64]
    fill = remover.fill([picture[:64, :64]], [hole], [0])[0]
    assert (np.abs(fill[hole].astype(int) - 128) <= 1).all()
    assert (fill[~hole] == picture[:64, :64][~hole]).all()


def test_lama_in_onnx_with_values_in_another_range_is_refused(tmp_path):
    path = tmp_path / "lama.onnx"
    shape = [("image", "float", [1, 3, None, None]), ("mask", "float", [1, 1, None, None])]
    save_onnx(path, shape, compose_scaled(7.0))
    remover = Lama("lama", path, GeneratorOptions(size=64))
    remover.setup()
    picture, mask = make_picture()
    with pytest.raises(WeightsError, match=r"in neither \[0, 1\] nor \[0, 255\]"):
        remover.fill([picture[:64, :64]], [mask[:64, :64]], [0])


def test_the_pipeline_of_migan_takes_255_as_known_and_its_mixed_rim_lies_outside_the_hole(tmp_path):
    """The graph keeps what its mask calls known, and mixes the picture back in for 3 px inside the rest."""

    def build(helper):
        constants = [helper.make_tensor("grey", 2, [1, 1, 1, 1], [128]), helper.make_tensor("zero", 2, [1], [0])]
        nodes = [
            helper.make_node("Cast", ["mask"], ["float_mask"], to=1),
            helper.make_node("MaxPool", ["float_mask"], ["wide"], kernel_shape=[7, 7], pads=[3, 3, 3, 3]),
            helper.make_node("Cast", ["wide"], ["wide_bytes"], to=2),
            helper.make_node("Greater", ["wide_bytes", "zero"], ["known"]),
            helper.make_node("Where", ["known", "image", "grey"], ["result"]),
        ]
        return nodes, constants

    path = tmp_path / "migan_pipeline.onnx"
    save_onnx(path, [("image", "uint8", [1, 3, None, None]), ("mask", "uint8", [1, 1, None, None])], build)
    remover = Migan("migan", path, GeneratorOptions(size=64))
    remover.setup()
    picture, mask = make_picture()
    crop, hole = picture[:64, :64], mask[:64, :64]
    fill = remover.fill([crop], [hole], [0])[0]
    assert (fill[hole] == 128).all()
    assert (fill[~hole] == crop[~hole]).all()
