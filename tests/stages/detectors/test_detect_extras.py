"""The detectors of extras against their libraries, with tiny random networks: the first GroundingDINO, and YOLO."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from support.tiny_networks import CLASSES, WORDS, check_boxes, check_detections, make_noise, make_tokenizer

from rasura.manifests.images import NotAnImage, decode_image
from rasura.networks.weights import BadWeights
from rasura.stages.detect import Detect, DetectParams, UnknownClass

pytestmark = pytest.mark.torch

torch.set_num_threads(1)  # as workers run: sums round the same way every time


@pytest.fixture(scope="module")
def pictures():
    return make_noise()


# ---- GroundingDINO of its authors


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Checkpoint, configuration and text encoder of a random GroundingDINO in its authors' form."""
    pytest.importorskip("groundingdino")
    import groundingdino
    from transformers import BertConfig

    from rasura.stages.detectors.grounding_dino_original import NO_CHECKPOINTS, read_settings, use_local_bert

    folder = tmp_path_factory.mktemp("original")
    text = (Path(groundingdino.__file__).parent / "config" / "GroundingDINO_SwinT_OGC.py").read_text()
    small = {"enc_layers": 1, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 20}
    lines = [line for line in text.splitlines() if line.split(" ")[0] not in small]
    (folder / "tiny.py").write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in small.items())]))
    bert = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    bert.save_pretrained(folder / "bert")
    make_tokenizer().save_pretrained(folder / "bert")
    args = read_settings(folder / "tiny.py")
    vars(args).update(NO_CHECKPOINTS, text_encoder_type=str(folder / "bert"))
    with warnings.catch_warnings(), use_local_bert():
        warnings.simplefilter("ignore")
        from groundingdino.models import build_model

        torch.manual_seed(0)
        model = build_model(args)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, 0, 0.1)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model": state | {"module.label_enc.weight": torch.ones(2)}}, folder / "tiny.pth")
    return folder


def open_original(folder, **more):
    from rasura.stages.detectors.grounding_dino_original import GroundingDinoOriginal

    return GroundingDinoOriginal(
        folder / "tiny.pth", folder / "tiny.py", folder / "bert", CLASSES, 0.1, 0.0, **{"sides": (96, 160), **more}
    )


def test_the_original_gives_the_results_of_its_own_library(original, pictures, monkeypatch):
    """The library by hand: its builder, loader, transforms and predict, with BertModel mended as everybody does."""
    from transformers import BertModel

    detector = open_original(original)
    before = set(vars(BertModel))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from groundingdino.util.inference import load_model, predict

        def mask(self, mask, shape=None, device=None):
            return (1.0 - mask[:, None].float()) * torch.finfo(torch.float32).min

        config = (original / "tiny.py").read_text().replace('"bert-base-uncased"', repr(str(original / "bert")))
        (original / "by_hand.py").write_text(config)
        BertModel(BertModel.config_class.from_pretrained(original / "bert")).save_pretrained(original / "bert")
        for name in ("get_extended_attention_mask", "invert_attention_mask"):
            monkeypatch.setattr(BertModel, name, mask, raising=False)
        monkeypatch.setattr(BertModel, "get_head_mask", lambda self, mask, layers: [None] * layers, raising=False)
        model = load_model(str(original / "by_hand.py"), str(original / "tiny.pth"), device="cpu")
        monkeypatch.undo()
        for picture in pictures[:3]:
            boxes, scores, _ = predict(
                model, detector.prepare(picture), "cat. traffic light. dog.", 0.1, 0.25, device="cpu"
            )
            height, width = picture.shape[:2]
            corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1).numpy()
            corners = np.clip(corners * [width, height, width, height], 0, [width, height, width, height])
            (detections,) = detector.find([picture])
            assert len(detections) >= 10
            check_boxes(detections, corners, scores.numpy())
    assert set(vars(BertModel)) == before  # ours needs nothing of the class changed


def test_the_original_batched_is_as_one_by_one(original, pictures):
    """Pictures of several sizes at once give what each gives alone."""
    detector = open_original(original)
    for together, alone in zip(
        detector.find(pictures[:4]), [detector.find([picture])[0] for picture in pictures[:4]], strict=True
    ):
        check_detections(together, alone)


def test_a_configuration_is_read_and_not_run(original, tmp_path):
    """A configuration with anything but constants is refused, and so is one of another network."""
    from rasura.stages.detectors.grounding_dino_original import read_settings

    assert read_settings(original / "tiny.py").num_queries == 20
    (tmp_path / "evil.py").write_text(f"modelname = open({str(tmp_path / 'mark')!r}, 'w')\n")
    with pytest.raises(BadWeights, match=r"evil.py' is no configuration"):
        read_settings(tmp_path / "evil.py")
    (tmp_path / "code.py").write_text("import os\n")
    with pytest.raises(BadWeights, match="line 1 is no `name = value`"):
        read_settings(tmp_path / "code.py")
    assert not (tmp_path / "mark").exists()
    (tmp_path / "other.py").write_text('modelname = "dino"\n')
    with pytest.raises(BadWeights, match="configures a 'dino'"):
        read_settings(tmp_path / "other.py")


# ---- YOLO


PARTS = [[-1, 1, "Conv", [64 * 2**k, 3, 2]] for k in range(5)] + [[-1, 1, "C2f", [1024, True]]]
YOLO = {
    "nc": 3,
    "scales": {"n": [0.33, 0.0625, 1024]},
    "scale": "n",
    "backbone": PARTS,
    "head": [[[2, 3, 5], 1, "Detect", ["nc"]]],
}


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """A YOLO checkpoint with random tensors, in the library's own form, whose classes are about even."""
    pytest.importorskip("ultralytics", reason="under the AGPL-3.0: `make test-agpl` installs and tests it")
    from rasura.stages.detectors.yolo import import_library

    import_library()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(YOLO, ch=3, nc=3, verbose=False)
    model.names = {0: "cat", 1: "dog", 2: "car"}
    model.args = {}
    for scale in model.model[-1].cv3:
        torch.nn.init.normal_(scale[-1].bias, 0, 1)
        torch.nn.init.normal_(scale[-1].weight, 0, 0.5)
    path = tmp_path_factory.mktemp("yolo") / "tiny.pt"
    torch.save({"model": model, "ema": None, "train_args": {}}, path)
    return path


def test_yolo_gives_the_results_of_its_library(yolo, pictures):
    """Boxes, scores and names are those of YOLO(path).predict, for pictures of any size; batched is one by one."""
    from ultralytics import YOLO as Library

    from rasura.stages.detectors.yolo import Yolo

    detector = Yolo(yolo, 0.3, 0.45, 128)
    detections = detector.find(pictures)
    model = Library(yolo)
    for picture, mine in zip(pictures, detections, strict=True):
        rows = model.predict(
            np.ascontiguousarray(picture[..., ::-1]), conf=0.3, iou=0.45, imgsz=128, verbose=False, device="cpu"
        )[0].boxes.data.numpy()
        assert [picture.label for picture in mine] == [model.names[int(row[5])] for row in rows]
        check_boxes(mine, rows[:, :4].reshape(-1, 4).tolist(), rows[:, 4])
        check_detections(detector.find([picture])[0], mine)
    assert sum(map(len, detections)) >= 10


def test_yolo_through_the_stage(yolo, pictures):
    """The stage takes the library's classes, reports an unknown one, and records the file."""
    stage = Detect(DetectParams(backend="yolo", weights=yolo, side=128, min_score=0.3))
    assert stage.weights() == {"yolo": yolo}
    stage.setup()
    (first, *_) = stage.process([{"id": "p", "source": pictures[0]}])
    assert {record["label"] for record in first.records} <= {"cat", "dog", "car"}
    with pytest.raises(UnknownClass, match="no classes of this network: zebra; the names are cat, dog, car"):
        Detect(DetectParams(backend="yolo", weights=yolo, include=("zebra",))).setup()


def test_yolo_leaves_the_decoder_alone(yolo):
    """With the library loaded a broken picture is still reported as one: the library's own opener would import a
    package instead."""
    from rasura.stages.detectors.yolo import import_library

    import_library()
    with pytest.raises(NotAnImage):
        decode_image(b"no picture at all")


class Foreign(torch.nn.Module):
    """A class that no YOLO is made of."""


def test_a_yolo_file_with_classes_of_its_own_is_refused(yolo, tmp_path):
    """A pickle with a class that is not the library's is refused in one line, and so is a file of another kind."""
    from rasura.stages.detectors.yolo import open_checkpoint as open_yolo

    torch.save({"model": Foreign()}, tmp_path / "foreign.pt")
    with pytest.raises(BadWeights, match=r"foreign.pt' cannot be opened as a YOLO of known parts"):
        open_yolo(tmp_path / "foreign.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "linear.pt")
    with pytest.raises(BadWeights, match="holds a Linear, not YOLO's DetectionModel"):
        open_yolo(tmp_path / "linear.pt")
    with pytest.raises(BadWeights, match="no YOLO checkpoint"):
        open_yolo(tmp_path / "x.pth")


def test_agpl_and_unmaintained_libraries_are_imported_only_when_chosen():
    """Making the other detectors' parameters, stages and modules imports neither ultralytics nor groundingdino."""
    code = (
        "import sys, rasura.stages.detect, rasura.stages.detectors.yolo\n"
        "import rasura.stages.detectors.grounding_dino_original\n"
        "import rasura.stages.detectors.grounding_dino\n"
        "from rasura.stages.detect import Detect, DetectParams\n"
        "Detect(DetectParams(backend='yolo', weights='x.pt')).schema({'source': 'rgb'})\n"
        "print(sorted({'ultralytics', 'groundingdino', 'torch', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
