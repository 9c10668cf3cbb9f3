"""`embed`, `classify`, `people`: given networks, whose answers are stored as they are; their faults are errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.networks.weights import BadWeights
from rasura.stages.curation.networks import Classify, ClassifyParams, Embed, EmbedParams, prepare_square
from rasura.stages.curation.people import People, PeopleParams, measure_cover
from rasura.stages.detect import UnknownClass
from rasura.stages.stage import InvalidValues, Kept, Record


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose answer is the mean of each channel of a (1, 3, 16, 16) input."""
    from onnx import TensorProto, helper, save_model

    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])]
    model = helper.make_model(helper.make_graph(nodes, "means", inputs, outputs), ir_version=8)
    model.opset_import[0].version = 13
    path = tmp_path_factory.mktemp("networks") / "means.onnx"
    save_model(model, str(path))
    return path


def answer(stage: Any, picture: np.ndarray) -> Record:
    stage.setup()
    outcome = stage.process_one({"id": "a", "source": picture})
    assert isinstance(outcome, Kept)
    return dict(outcome.records[0])


def test_embeddings_have_length_one_and_the_channels_order(means: Path) -> None:
    """A picture of one colour gives its colour's direction, as RGB or as BGR; black gives zeros and no NaN."""
    picture = np.full((20, 33, 3), (30, 60, 90), np.uint8)
    plain = {"network": str(means), "size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}
    expected = np.array([30, 60, 90]) / np.linalg.norm([30, 60, 90])
    assert answer(Embed(EmbedParams(**plain)), picture)["embedding"] == pytest.approx(expected.tolist(), abs=1e-6)
    turned = answer(Embed(EmbedParams(**plain, channels="bgr")), picture)["embedding"]
    assert turned == pytest.approx(expected[::-1].tolist(), abs=1e-6)
    assert answer(Embed(EmbedParams(**plain)), picture * 0)["embedding"] == [0.0, 0.0, 0.0]
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 200  # only the middle is in a crop
    assert prepare_square(wide, EmbedParams(**plain)).min() == 200
    assert prepare_square(wide, EmbedParams(**plain, fit="stretch")).min() == 0


def test_scores_are_columns_by_label(means: Path) -> None:
    """As the network gives them, or as probabilities; labels that do not fit, a wrong input and a missing file are
    errors, a label that could be no column is refused before the run."""
    picture = np.full((16, 16, 3), (10, 20, 30), np.uint8)
    plain: dict[str, Any] = {"network": str(means), "size": 16, "mean": (0, 0, 0), "std": (10, 10, 10)}
    stage = Classify(ClassifyParams(**plain, labels=("safe", "nude", "gore")))
    assert set(stage.schema({"id": Kind.STRING, "source": Kind.RGB})) == {
        *("id", "source", "safety_safe", "safety_nude", "safety_gore")
    }
    row = answer(stage, picture)
    assert [row[f"safety_{name}"] for name in ("safe", "nude", "gore")] == pytest.approx([1.0, 2.0, 3.0])
    soft = answer(Classify(ClassifyParams(**plain, labels=("a", "b", "c"), activation="softmax", name="x")), picture)
    assert sum(soft[f"x_{name}"] for name in "abc") == pytest.approx(1)
    with pytest.raises(BadWeights, match="3 classes, and `labels` names 2"):
        answer(Classify(ClassifyParams(**plain, labels=("a", "b"))), picture)
    with pytest.raises(BadWeights, match="set size and layout"):
        answer(Embed(EmbedParams(**plain, layout="nhwc")), picture)
    with pytest.raises(BadWeights, match="no output 'z'; it has y"):
        answer(Embed(EmbedParams(**plain, output="z")), picture)
    for labels in (("a", "a"), ("a", "B/../x")):
        with pytest.raises(InvalidValues):
            ClassifyParams(**plain, labels=labels)


def test_people_are_counted(assets: Path) -> None:
    """On a photograph of two people and on one without; overlapping boxes cover once."""
    from rasura.manifests.images import decode_image

    stage = People(PeopleParams(detector={"weights": str(assets / "weights" / "yolox_nano_416.onnx")}))  # type: ignore[arg-type]
    folder = assets / "photos" / "coco"
    two = answer(stage, decode_image((folder / "000000060623.jpg").read_bytes()))
    none = answer(stage, decode_image((folder / "000000006818.jpg").read_bytes()))
    assert (two["people_count"], none["people_count"]) == (2, 0)
    assert two["people_area"] > 0.4
    assert none["people_area"] == 0
    assert two["face_count"] is None
    network = {"weights": str(assets / "weights" / "yolox_nano_416.onnx")}
    both = People(PeopleParams(detector=network, faces=network, face="person"))  # type: ignore[arg-type]
    again = answer(both, decode_image((folder / "000000060623.jpg").read_bytes()))
    assert (again["face_count"], again["face_area"]) == (2, two["people_area"])
    with pytest.raises(UnknownClass, match="face"):
        People(PeopleParams(detector=network, faces=network))  # type: ignore[arg-type]
    assert measure_cover([(-5.0, 2.0, 5.0, 99.0), (0.0, 0.0, 5.0, 10.0)], 10, 10) == pytest.approx(0.5)
