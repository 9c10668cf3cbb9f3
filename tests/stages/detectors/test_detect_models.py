"""GroundingDINO against its library, with a tiny random network of the same architecture: same boxes, same scores.

Random networks give meaningless results, which suffices to check that two ways of calling them agree.
"""

import hashlib

import numpy as np
import pytest
import torch
import yaml
from support.tiny_networks import CLASSES, WORDS, check_boxes, check_detections, make_noise, make_tokenizer

from rasura.manifests.images import encode_image
from rasura.networks.weights import BadWeights
from rasura.pipeline.engine.execute import ActivityMonitor, Quarantine, run_stage
from rasura.pipeline.recipe.load import parse
from rasura.pipeline.recipe.plan import plan
from rasura.stages.detect import Detect, DetectParams
from rasura.stages.detectors.boxes import Detection
from rasura.stages.detectors.grounding_dino import GroundingDino
from rasura.stages.detectors.text import build_prompt, build_prompts, make_offsets, match_classes
from rasura.stages.stage import Kept

pytestmark = pytest.mark.torch

torch.set_num_threads(1)  # as workers run: sums round the same way every time
STAGES = ["stage2", "stage3", "stage4"]


@pytest.fixture(scope="module")
def pictures():
    return make_noise()


# ---- words


def test_a_prompt_is_the_classes_in_lower_case_with_full_stops():
    """The caption is GroundingDINO's; each class has the tokens of its own words, also where it is cut into several."""
    prompt = build_prompt(["cat", "Traffic Light", "dogs"], make_offsets(make_tokenizer()))
    assert prompt.caption == "cat. traffic light. dogs."
    ids = make_tokenizer()(prompt.caption)["input_ids"]
    tokens = [[WORDS[k] for k in ids[a:b]] for a, b in prompt.spans]
    assert tokens == [["cat"], ["traffic", "light"], ["dog", "##s"]]


def test_long_lists_become_several_prompts():
    """No prompt is longer than the network reads, none is empty, every class is asked for once and in order."""
    names = ["cat", "dog", "traffic light", "potted plant", "person", "car"]
    offsets = make_offsets(make_tokenizer())
    parts = build_prompts(names, offsets, 8)
    assert [name for part in parts for name in part.classes] == names
    assert len(parts) == 3
    assert all(len(offsets(part.caption)) <= 8 for part in parts)
    assert len(build_prompts(names, offsets, 256)) == 1
    with pytest.raises(ValueError, match="'traffic light' is longer than the 4 tokens"):
        build_prompts(names, offsets, 4)


def test_a_box_gets_the_class_that_it_fits_best_and_its_own_largest_score():
    """Classes of two words count by their mean; answers below either threshold, or without area, are none."""
    prompt = build_prompt(["cat", "traffic light"], make_offsets(make_tokenizer()))  # [CLS] cat . traffic light . [SEP]
    probabilities = np.array(
        [
            [0, 0.5, 0, 0.8, 0.1, 0.1, 0],  # traffic alone: .45 for the light, .5 for the cat
            [0, 0.5, 0, 0.8, 0.7, 0.1, 0],
            [0.9, 0.2, 0, 0.1, 0.1, 0.1, 0],  # not of any class
            [0, 0.3, 0, 0, 0, 0, 0],
            [0, 0.9, 0, 0, 0, 0, 0],
        ]
    )
    boxes = np.array([[0.5, 0.5, 0.2, 0.4]] * 4 + [[0.5, 0.5, 0, 0.1]])
    detections = match_classes(probabilities, boxes, prompt, (100, 200), 0.35, 0.25)
    assert [(one.label, one.score) for one in detections] == [("cat", 0.8), ("traffic light", 0.8)]
    assert detections[0].box == pytest.approx((80, 30, 120, 70))


# ---- GroundingDINO of transformers


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """A folder with a GroundingDINO of half a million random parameters."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4, out_features=STAGES
    )
    bert = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    feet = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = GroundingDinoConfig(
        backbone_config=swin.to_dict(),
        text_config=bert.to_dict(),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        num_queries=20,
        max_text_len=64,
        **feet,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    GroundingDinoProcessor(images, make_tokenizer()).save_pretrained(folder)
    return folder


def test_grounding_dino_gives_the_results_of_the_library(dino, pictures):
    """Boxes and scores are those of the library called by hand, for pictures of any size; labels are ours alone."""
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    model = GroundingDinoForObjectDetection.from_pretrained(dino).eval()
    processor = GroundingDinoProcessor.from_pretrained(dino)
    detector = GroundingDino(dino, CLASSES, 0.6, 0.0)
    total = 0
    for picture in pictures:
        upright = {"images": picture.copy(), "input_data_format": "channels_last"}
        inputs = processor(text="cat. traffic light. dog.", return_tensors="pt", **upright)
        with torch.no_grad():
            outputs = model(**inputs)
        (by_hand,) = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.6, text_threshold=0.25, target_sizes=[picture.shape[:2]]
        )
        height, width = picture.shape[:2]
        boxes = np.clip(by_hand["boxes"].numpy(), 0, [width, height, width, height])
        solid = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) >= 1
        (detections,) = detector.find([picture])
        check_boxes(detections, boxes[solid], by_hand["scores"].numpy()[solid])
        total += len(detections)
        words = [text for text, keep in zip(by_hand["text_labels"], solid, strict=True) if keep]
        for one, text in zip(detections, words, strict=True):
            if text in {"cat", "traffic light", "dog"}:
                assert one.label == text
    assert total >= 20


def test_a_batch_of_pictures_is_as_one_by_one(dino, pictures):
    """Pictures of several sizes at once give the detections that each gives alone, in the order of the pictures."""
    detector = GroundingDino(dino, CLASSES, 0.6, 0.0)
    assert not detector.batches
    for together, alone in zip(detector.find(pictures), [detector.find([one])[0] for one in pictures], strict=True):
        check_detections(together, alone)


def test_the_stage_asks_for_its_classes(dino, pictures):
    """Records of photos get labels of the list and the columns of a detection; the weights are the folder's files."""
    params = DetectParams(backend="grounding-dino", weights=dino, include=CLASSES, min_score=0.6, text_threshold=0)
    stage = Detect(params)
    files = stage.weights()
    assert {"grounding-dino/model.safetensors", "grounding-dino/config.json"} <= set(files)
    assert all(path.is_file() for path in files.values())
    stage.setup()
    records = [{"id": f"p{k}", "source": picture} for k, picture in enumerate(pictures)]
    outcomes = stage.process(records)
    assert all(isinstance(one, Kept) for one in outcomes)
    rows = [record for one in outcomes for record in one.records]
    assert rows
    assert {record["label"] for record in rows} <= {"cat", "traffic light", "dog"}
    assert [one.records for one in outcomes] == [stage.process_one(record).records for record in records]
    few = Detect(params.model_copy(update={"exclude": ("cat", "dog", "traffic light")}))
    few.setup()
    assert [record for one in few.process(records) for record in one.records] == []


def test_every_row_records_the_files_it_was_made_with(dino, pictures, tmp_path):
    """Through planner and worker: a row's weights are the sha256 of each file of the folder, under its own name."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "p.png").write_bytes(encode_image(pictures[0]))
    detect = {"backend": "grounding-dino", "weights": str(dino), "include": ["cat"], "min_score": 0.6}
    flows = {"photos": {"source": {"photos": {"path": str(tmp_path / "photos")}}, "stages": [{"detect": detect}]}}
    resolved = plan(*parse(yaml.safe_dump({"name": "x", "flows": flows}), "r.yaml"))
    spec = resolved.flows["photos"].stages[1]
    stage = spec.make()
    stage.setup()
    record = dict.fromkeys(spec.columns) | {"id": "p", "source": pictures[0]}
    rows, dropped, _ = run_stage(spec, stage, [record], Quarantine(), ActivityMonitor(), {})
    assert not dropped
    assert rows
    names = ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
    sums = {f"detect.grounding-dino/{name}": hashlib.sha256((dino / name).read_bytes()).hexdigest() for name in names}
    assert all(row["weights"] == sums for row in rows)


def test_a_folder_of_another_network_is_refused(dino, tmp_path):
    """The error names the folder and both kinds; a folder without a processor is reported too."""
    with pytest.raises(BadWeights, match=r"has no config.json|no files for"):
        GroundingDino(tmp_path, CLASSES, 0.1, 0.1)
    for file in dino.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "config.json").read_text().replace('"grounding-dino"', '"detr"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadWeights, match="holds a 'detr', GroundingDinoForObjectDetection needs a 'grounding-dino'"):
        GroundingDino(tmp_path, CLASSES, 0.1, 0.1)


def test_detections_are_plain_values():
    """What goes into a row is a text and floats, not numpy's or torch's."""
    detections = match_classes(np.array([[0.9, 0.9]]), np.array([[0.5, 0.5, 0.5, 0.5]]), PROMPT, (10, 10), 0.1, 0.1)
    assert detections == [Detection("cat", 0.9, (2.5, 2.5, 7.5, 7.5))]
    assert {type(value) for value in (detections[0].score, *detections[0].box)} == {float}


PROMPT = build_prompt(["cat"], lambda caption: [(0, 3), (3, 4)])
