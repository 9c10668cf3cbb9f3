"""GroundingDINO by its authors' library (the extra `groundingdino`), for their original checkpoints.

The library is no longer maintained: it calls three methods of BertModel that transformers 5 does not have, and its
loader unpickles anything and runs its configuration as a program. Here the methods are added to the one model, the
checkpoint is opened as tensors only, and the configuration is read, not run.
"""

import ast
import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rasura.manifests.images import RGB
from rasura.networks import pretrained, weights
from rasura.stages.detectors.boxes import Detection, detect_by_size
from rasura.stages.detectors.text import build_prompts, make_offsets, match_classes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPARE = ("label_enc.", "bert.embeddings.position_ids")  # of training, and a buffer: in the checkpoints, not the model
NO_CHECKPOINTS = {"use_checkpoint": False, "use_transformer_ckpt": False}  # they save memory in training alone


def read_settings(path: Path) -> SimpleNamespace:
    """Read the configuration of a GroundingDINO: `name = literal` lines of a Python file, which is not run.

    Raises:
        BadWeights: it holds anything else.
    """
    values: dict[str, Any] = {}
    try:
        for node in ast.parse(path.read_text()).body:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                raise ValueError(f"line {node.lineno} is no `name = value`")
            values[node.targets[0].id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, UnicodeDecodeError) as error:
        raise weights.BadWeights(f"'{path}' is no configuration of GroundingDINO: {error}") from error
    if values.get("modelname") != "groundingdino":
        raise weights.BadWeights(f"'{path}' configures a '{values.get('modelname')}', not a 'groundingdino'")
    return SimpleNamespace(**values)


def build_bert(folder: str) -> Any:
    """Build a BERT without weights (the checkpoint has them) and with the methods that the library expects."""
    import torch
    from transformers import BertConfig, BertModel

    bert: Any = BertModel(BertConfig.from_pretrained(folder, local_files_only=True))

    def extend_mask(mask: Any, shape: Any = None, device: Any = None, dtype: Any = None) -> Any:
        wide = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
        return (1.0 - wide.to(bert.dtype)) * torch.finfo(bert.dtype).min

    bert.get_extended_attention_mask = bert.invert_attention_mask = extend_mask
    bert.get_head_mask = lambda mask, layers: [mask] * layers
    return bert


@contextlib.contextmanager
def use_local_bert() -> Iterator[None]:
    """Let the library take its BERT from `build_bert` while a model is built, and neither print nor warn."""
    from groundingdino.util import get_tokenlizer

    before = get_tokenlizer.get_pretrained_language_model
    get_tokenlizer.get_pretrained_language_model = build_bert
    try:
        with contextlib.redirect_stdout(io.StringIO()), pretrained.quiet():
            yield
    finally:
        get_tokenlizer.get_pretrained_language_model = before


class GroundingDinoOriginal:
    """A checkpoint of the authors with its configuration, and a folder with its BERT's config.json and vocabulary."""

    def __init__(
        self,
        checkpoint: Path,
        config: Path,
        text_encoder: Path,
        classes: Sequence[str],
        min_score: float,
        text_threshold: float,
        sides: tuple[int, int] = (800, 1333),
    ) -> None:
        args = read_settings(config)
        vars(args).update(NO_CHECKPOINTS, text_encoder_type=str(text_encoder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library, about others' deprecations
            try:
                from groundingdino.models import build_model
            except ImportError as error:
                raise ImportError(
                    f"backend 'groundingdino-original' needs the extra `groundingdino` (pip install "
                    f"'rasura[groundingdino]'): {error}"
                ) from error
            with use_local_bert():
                model = build_model(args)
        state = {name.removeprefix("module."): value for name, value in weights.read_tensors(checkpoint).items()}
        self.model = weights.load_state(model, state, checkpoint, SPARE)
        self.device = weights.pick_device()
        self.batches = self.device != "cpu"
        self.sides = sides
        self.prompts = build_prompts(classes, make_offsets(self.model.tokenizer), args.max_text_len)
        self.thresholds = min_score, text_threshold

    def prepare(self, picture: RGB) -> Any:
        """Return a (3, h, w) tensor: shorter side `sides[0]`, longer at most `sides[1]`, by its own transforms."""
        from groundingdino.datasets import transforms
        from PIL import Image

        steps = [
            transforms.RandomResize([self.sides[0]], max_size=self.sides[1]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        return transforms.Compose(steps)(Image.fromarray(np.ascontiguousarray(picture)), None)[0]

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return detect_by_size(pictures, self._detect_batch)

    def _detect_batch(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Find objects in pictures of one size."""
        import torch

        size = (pictures[0].shape[0], pictures[0].shape[1])
        batch = torch.stack([self.prepare(picture) for picture in pictures]).to(self.device)
        detections: list[list[Detection]] = [[] for _ in pictures]
        for prompt in self.prompts:
            with torch.inference_mode(), pretrained.quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outputs = self.model(batch, captions=[prompt.caption] * len(pictures))
            probabilities = outputs["pred_logits"].sigmoid().cpu().numpy()
            boxes = outputs["pred_boxes"].cpu().numpy()
            for k in range(len(pictures)):
                detections[k] += match_classes(probabilities[k], boxes[k], prompt, size, *self.thresholds)
        return detections
