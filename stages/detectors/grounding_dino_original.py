"""GroundingDINO by its authors' library (the extra `groundingdino`), for their original checkpoints.

The library is no longer kept up: it asks BertModel for three methods that transformers 5 has not, and its own loader
unpickles anything and runs its configuration as a program. Here the methods are given to the one model, the checkpoint
is opened as tensors only, and the configuration is read, not run.
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
from rasura.networks import weights
from rasura.stages.detectors.boxes import Detection, by_size
from rasura.stages.detectors.text import named, offsets_of, prompts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPARE = ("label_enc.", "bert.embeddings.position_ids")  # of training, and a buffer: in the checkpoints, not the model
NO_CHECKPOINTS = {"use_checkpoint": False, "use_transformer_ckpt": False}  # they save memory in training alone


def settings(path: Path) -> SimpleNamespace:
    """The configuration of a GroundingDINO: `name = literal` lines of a Python file, which is not run.

    Raises:
        BadWeights: it holds anything else.
    """
    found: dict[str, Any] = {}
    try:
        for node in ast.parse(path.read_text()).body:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                raise ValueError(f"line {node.lineno} is no `name = value`")
            found[node.targets[0].id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, UnicodeDecodeError) as error:
        raise weights.BadWeights(f"'{path}' is no configuration of GroundingDINO: {error}") from error
    if found.get("modelname") != "groundingdino":
        raise weights.BadWeights(f"'{path}' configures a '{found.get('modelname')}', not a 'groundingdino'")
    return SimpleNamespace(**found)


def _bert(folder: str) -> Any:
    """A BERT without weights (the checkpoint has them) and with what the library expects of one."""
    import torch
    from transformers import BertConfig, BertModel

    bert: Any = BertModel(BertConfig.from_pretrained(folder, local_files_only=True))

    def extended(mask: Any, shape: Any = None, device: Any = None, dtype: Any = None) -> Any:
        wide = mask[:, None] if mask.dim() == 3 else mask[:, None, None]
        return (1.0 - wide.to(bert.dtype)) * torch.finfo(bert.dtype).min

    bert.get_extended_attention_mask = bert.invert_attention_mask = extended
    bert.get_head_mask = lambda mask, layers: [mask] * layers
    return bert


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """While a model is built, the library takes its BERT from `_bert`, and neither prints nor warns."""
    from groundingdino.util import get_tokenlizer

    before = get_tokenlizer.get_pretrained_language_model
    get_tokenlizer.get_pretrained_language_model = _bert
    try:
        with contextlib.redirect_stdout(io.StringIO()), weights.quiet():
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
        args = settings(config)
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
            with _without_hub():
                model = build_model(args)
        state = {name.removeprefix("module."): value for name, value in weights.tensors(checkpoint).items()}
        self.model = weights.filled(model, state, checkpoint, SPARE)
        self.device = weights.device()
        self.batches = self.device != "cpu"
        self.sides = sides
        self.prompts = prompts(classes, offsets_of(self.model.tokenizer), args.max_text_len)
        self.thresholds = min_score, text_threshold

    def prepared(self, picture: RGB) -> Any:
        """(3, h, w) tensor: shorter side `sides[0]`, longer at most `sides[1]`, by the library's own transforms."""
        from groundingdino.datasets import transforms
        from PIL import Image

        steps = [
            transforms.RandomResize([self.sides[0]], max_size=self.sides[1]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        return transforms.Compose(steps)(Image.fromarray(np.ascontiguousarray(picture)), None)[0]

    def find(self, pictures: Sequence[RGB]) -> list[list[Detection]]:
        return by_size(pictures, self._equal)

    def _equal(self, pictures: list[RGB]) -> list[list[Detection]]:
        """Detections in pictures of one size."""
        import torch

        size = (pictures[0].shape[0], pictures[0].shape[1])
        batch = torch.stack([self.prepared(picture) for picture in pictures]).to(self.device)
        found: list[list[Detection]] = [[] for _ in pictures]
        for asked in self.prompts:
            with torch.inference_mode(), weights.quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = self.model(batch, captions=[asked.caption] * len(pictures))
            probabilities = answers["pred_logits"].sigmoid().cpu().numpy()
            boxes = answers["pred_boxes"].cpu().numpy()
            for k in range(len(pictures)):
                found[k] += named(probabilities[k], boxes[k], asked, size, *self.thresholds)
        return found
