"""LPIPS (arXiv 1801.03924): how far apart two pictures look, by a network's features. 0 is equal, less is closer.

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

from rasura.networks.weights import BadWeights, device, filled, tensors

Array = npt.NDArray[Any]

BATCH = 8
LEAST = 32
"""Shorter side of a picture, px, below which AlexNet's last feature map is empty."""
FIRST = {"alex": (64, 3, 11, 11), "vgg": (64, 3, 3, 3)}
"""Shape of the first convolution of a backbone, by the package's name for it."""


class Lpips:
    """The network, opened: AlexNet's, which papers report, or VGG's, whichever the file holds."""

    def __init__(self, path: Path) -> None:
        """Raises:
        BadWeights: the file is not there, holds more than tensors, or no AlexNet and no VGG-16.
        """
        if not path.is_file():
            raise BadWeights(f"there is no file '{path}': LPIPS needs torchvision's AlexNet or VGG-16 (measures.lpips)")
        given = tensors(path)
        first = tuple(given["features.0.weight"].shape) if "features.0.weight" in given else None
        self.name = next((name for name, shape in FIRST.items() if shape == first), "")
        if not self.name:
            raise BadWeights(f"'{path}' is neither torchvision's AlexNet nor its VGG-16: features.0.weight is {first}")
        self.network = _network(self.name, given, path)

    def distances(self, made: Sequence[Array], true: Sequence[Array]) -> Array:
        """LPIPS (n,) of pictures (h, w, 3) uint8 and their truths; those of one size are measured together.

        Raises:
            ValueError: two pictures differ in size, or are smaller than the network can see.
        """
        import torch

        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (one, other) in enumerate(zip(made, true, strict=True)):
            if one.shape != other.shape or min(one.shape[:2]) < LEAST:
                raise ValueError(f"LPIPS compares pictures of one size from {LEAST} px: {one.shape} and {other.shape}")
            groups[one.shape].append(index)
        found = np.zeros(len(made))
        with torch.inference_mode():
            for indices in groups.values():
                for start in range(0, len(indices), BATCH):
                    here = indices[start : start + BATCH]
                    apart = self.network(*(_stacked([pictures[k] for k in here]) for pictures in (made, true)))
                    found[here] = apart.double().flatten().cpu().numpy()
        return found


def _network(name: str, given: dict[str, Any], path: Path) -> Any:
    import lpips
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of how the package asks for no weights
        network = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
    # slice2.3.weight there is features.3.weight in torchvision's files; the classifier is not used
    names = {one: "features." + one.split(".", 1)[1] for one in network.net.state_dict()}
    filled(network.net, {one: given[theirs] for one, theirs in names.items() if theirs in given}, path)
    return network.eval().to(device())


def _stacked(pictures: Sequence[Array]) -> Any:
    import torch

    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
    return stacked.to(device()).float() / 127.5 - 1
