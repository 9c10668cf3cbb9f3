"""LPIPS (arXiv 1801.03924): the perceptual distance of two pictures by a network's features. 0 is equal.

The network and its linear heads are those of the `lpips` package; the backbone's weights come from a local file
(torchvision's AlexNet, `alexnet-owt-7be5be79.pth`, or its VGG-16), so that nothing is fetched while a loop runs.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.networks.finite import check_finite
from rasura.networks.weights import BadWeights, load_state, pick_device, read_tensors

Array = npt.NDArray[Any]

BATCH = 8
LEAST = 32
"""Shorter side of a picture, px, below which AlexNet's last feature map is empty."""
FIRST = {"alex": (64, 3, 11, 11), "vgg": (64, 3, 3, 3)}
"""Shape of the first convolution of a backbone, by the package's name for it."""


class Lpips:
    """LPIPS by AlexNet, which papers report, or by VGG-16, whichever the file holds."""

    def __init__(self, path: Path) -> None:
        """Open the network.

        Raises:
            BadWeights: the file is missing, holds more than tensors, or is neither AlexNet nor VGG-16.
        """
        if not path.is_file():
            raise BadWeights(f"there is no file '{path}': LPIPS needs torchvision's AlexNet or VGG-16 (measures.lpips)")
        tensors = read_tensors(path)
        first = tuple(tensors["features.0.weight"].shape) if "features.0.weight" in tensors else None
        self.name = next((name for name, shape in FIRST.items() if shape == first), "")
        if not self.name:
            raise BadWeights(f"'{path}' is neither torchvision's AlexNet nor its VGG-16: features.0.weight is {first}")
        self.network = _open_network(self.name, tensors, path)

    def compute_distances(self, pictures: Sequence[Array], truths: Sequence[Array]) -> Array:
        """Return LPIPS (n,) of pictures (h, w, 3) uint8 and their truths; those of one size are measured together.

        Raises:
            ValueError: two pictures differ in size, or are too small for the network.
            NotFinite: a distance is none.
        """
        import torch

        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
            if picture.shape != truth.shape or min(picture.shape[:2]) < LEAST:
                raise ValueError(
                    f"LPIPS compares pictures of one size from {LEAST} px: {picture.shape} and {truth.shape}"
                )
            groups[picture.shape].append(index)
        distances = np.zeros(len(pictures))
        with torch.inference_mode():
            for indices in groups.values():
                for start in range(0, len(indices), BATCH):
                    batch = indices[start : start + BATCH]
                    tensors = (_stack([group[k] for k in batch]) for group in (pictures, truths))
                    distances[batch] = self.network(*tensors).double().flatten().cpu().numpy()
        check_finite(distances, "the distances")
        return distances


def _open_network(name: str, tensors: dict[str, Any], path: Path) -> Any:
    import lpips
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of how the package asks for no weights
        network = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
    # slice2.3.weight there is features.3.weight in torchvision's files; the classifier is not used
    names = {name: "features." + name.split(".", 1)[1] for name in network.net.state_dict()}
    load_state(network.net, {name: tensors[key] for name, key in names.items() if key in tensors}, path)
    return network.eval().to(pick_device())


def _stack(pictures: Sequence[Array]) -> Any:
    import torch

    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
    return stacked.to(pick_device()).float() / 127.5 - 1
