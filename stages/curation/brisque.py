"""BRISQUE, a quality score without a reference, by the files of a trained model: OpenCV's or libsvm's.

Source: Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", 2012. Normalized
luma (MSCN) and its products with four neighbours, at two sizes, are described by asymmetric generalized Gaussians; a
support vector machine turns their 36 parameters into a score. Features are OpenCV's, so that its files give its scores.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB
from rasura.networks.weights import BadWeights

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FEATURES = 36
SCALES = (1, 2)
WINDOW, SIGMA = 7, 7 / 6  # px of the local mean and deviation
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # rows and columns to the neighbour: right, below, two diagonals
LEAST_SIDE = 16  # px: below, the half size has next to nothing to fit
LARGEST_FILE = 2**26


class Shape(NamedTuple):
    """An asymmetric generalized Gaussian.

    Attributes:
        gamma: its shape; 2 is a Gaussian.
        left, right: its deviations below and above 0.
    """

    gamma: float
    left: float
    right: float


class Brisque(NamedTuple):
    """A trained model: a support vector machine with a radial kernel, and the ranges of its features.

    Attributes:
        vectors: (n, 36) support vectors.
        weights: (n,) of the vectors.
        offset: that is subtracted.
        gamma: of the kernel.
        ranges: (2, 36) lowest and highest value of each feature in training.
        scaled: to which values these are scaled.
    """

    vectors: Doubles
    weights: Doubles
    offset: float
    gamma: float
    ranges: Doubles
    scaled: tuple[float, float] = (-1.0, 1.0)


@functools.cache
def _list_shapes() -> tuple[Doubles, Doubles]:
    """Return the values of gamma that are tried, and the ratio of moments that each has; both increase."""
    gammas = np.cumsum(np.concatenate([[0.2], np.full(9799, 0.001)]))
    gamma = math.gamma
    ratios = [gamma(2 / value) ** 2 / (gamma(1 / value) * gamma(3 / value)) for value in gammas.tolist()]
    return gammas, np.asarray(ratios)


def fit_shape(values: Floats) -> Shape | None:
    """Fit an asymmetric generalized Gaussian by its moments; None where values are not on both sides of 0.

    Examples:
        >>> fit_shape(np.float32([[-1, 1], [-1, 1]])).left
        1.0
        >>> fit_shape(np.zeros((4, 4), np.float32)) is None
        True
    """
    numbers = values.astype(np.float64)
    below, above = numbers[numbers < 0], numbers[numbers > 0]
    if not below.size or not above.size:
        return None
    squares = float(below @ below), float(above @ above)
    left, right = math.sqrt(squares[0] / below.size), math.sqrt(squares[1] / above.size)
    skew = left / right
    ratio = (np.abs(numbers).sum() / numbers.size) ** 2 / (sum(squares) / numbers.size)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    gammas, ratios = _list_shapes()
    return Shape(float(gammas[np.argmin(np.abs(ratios - ratio))]), left, right)


def compute_features(picture: RGB) -> Floats | None:
    """Compute the 36 features of a picture; None where it is flat or smaller than `LEAST_SIDE`.

    Args:
        picture: (h, w, 3) uint8.
    """
    if min(picture.shape[:2]) < LEAST_SIDE:
        return None
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) * np.float32(1 / 255)
    features: list[float] = []
    for scale in SCALES:
        size = (grey.shape[1] // scale, grey.shape[0] // scale)
        normal = _normalize(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), np.float32))
        shape = fit_shape(normal)
        if shape is None:
            return None
        features += [shape.gamma, (shape.left**2 + shape.right**2) / 2]
        for rows, columns in NEIGHBOURS:
            shape = fit_shape(normal * _shift(normal, rows, columns))
            if shape is None:
                return None
            first, second, third = (math.gamma(k / shape.gamma) for k in (1, 2, 3))
            mean = (shape.right - shape.left) * (second / first) * math.sqrt(first / third)
            features += [shape.gamma, mean, shape.left**2, shape.right**2]
    return np.asarray(features, np.float32)


def _normalize(grey: Floats) -> Floats:
    """Subtract the local mean and divide by the local deviation (MSCN)."""
    mean = cv2.GaussianBlur(grey, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(grey * grey, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REPLICATE)
    variance = square - mean * mean  # rounding can make it negative where the picture is flat: no deviation is known
    deviation = np.sqrt(np.maximum(variance, 0)) + np.float32(1 / 255)
    return np.where(variance < 0, np.float32(0), (grey - mean) / deviation).astype(np.float32)


def _shift(values: Floats, rows: int, columns: int) -> Floats:
    """Return each pixel's neighbour, 0 beyond the picture."""
    shifted = np.zeros_like(values)
    height, width = values.shape
    source = values[max(0, rows) : height + min(0, rows), columns:]
    shifted[max(0, -rows) : height - max(0, rows), : width - columns] = source
    return shifted


def score_brisque(picture: RGB, model: Brisque) -> float | None:
    """Score a picture, 0 (best) to 100; None where it is flat or too small.

    Args:
        picture: (h, w, 3) uint8.
        model: as `read_brisque` returns it.
    """
    features = compute_features(picture)
    if features is None:
        return None
    (low, high), (least, most) = model.ranges.astype(np.float32), model.scaled
    span = np.where(high > low, high - low, np.float32(1))
    scaled = np.where(high > low, least + (most - least) * (features - low) / span, np.float32(least))
    distances = ((model.vectors - scaled.astype(np.float64)) ** 2).sum(axis=1)
    kernel = cv2.exp((-model.gamma * distances).astype(np.float32)).ravel()  # as precise as OpenCV's own
    score = float(model.weights @ kernel.astype(np.float64)) - model.offset
    return min(max(score, 0.0), 100.0)


def read_brisque(model: Path, ranges: Path) -> Brisque:
    """Read a trained model, of OpenCV (`brisque_model_live.yml`, `brisque_range_live.yml`) or of libsvm.

    Args:
        model: file of the support vector machine: epsilon-SVR with a radial kernel.
        ranges: file of the features' ranges; of libsvm, as svm-scale writes it.

    Raises:
        BadWeights: a file is neither, or not of 36 features. The text says what is wrong.
    """
    texts = {}
    for path in (model, ranges):
        if path.stat().st_size > LARGEST_FILE:
            raise BadWeights(f"'{path}' has {path.stat().st_size} bytes, limit {LARGEST_FILE}")
        texts[path] = path.read_text(encoding="utf-8", errors="replace")
    read = _read_opencv if texts[model].startswith("%YAML") else _read_libsvm
    try:
        found = read(texts[model], texts[ranges])
    except (ValueError, KeyError, IndexError, SystemError, cv2.error) as error:
        line = " ".join(str(error).split())[:200]
        raise BadWeights(f"'{model}' and '{ranges}' are no BRISQUE model of OpenCV or libsvm: {line}") from None
    if found.vectors.shape != (len(found.weights), FEATURES) or found.ranges.shape != (2, FEATURES):
        raise BadWeights(f"'{model}' and '{ranges}': {found.vectors.shape[-1]} features; BRISQUE has {FEATURES}")
    if not all(np.isfinite(values).all() for values in (found.vectors, found.weights, found.ranges)):
        raise BadWeights(f"'{model}' and '{ranges}' have values that are no numbers")
    return found


def _read_opencv(model: str, ranges: str) -> Brisque:
    mode = cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY
    storage, ranges_storage = cv2.FileStorage(model, mode), cv2.FileStorage(ranges, mode)  # which own their nodes
    machine = storage.getNode("opencv_ml_svm")
    kinds = machine.getNode("svmType").string(), machine.getNode("kernel").getNode("type").string()
    if kinds != ("EPS_SVR", "RBF"):
        raise ValueError(f"svmType and kernel are {kinds}, not EPS_SVR and RBF")
    vectors = _read_rows(machine.getNode("support_vectors"))
    function = machine.getNode("decision_functions").at(0)
    weights = _read_numbers(function.getNode("alpha"))
    index = function.getNode("index")
    if not index.empty():
        vectors = vectors[_read_numbers(index).astype(np.int64)]
    limits = ranges_storage.getNode("range").mat()
    gamma = machine.getNode("kernel").getNode("gamma").real()
    return Brisque(vectors, weights, function.getNode("rho").real(), gamma, np.asarray(limits, np.float64))


def _read_numbers(node: cv2.FileNode) -> Doubles:
    return np.asarray([node.at(k).real() for k in range(node.size())], np.float64)


def _read_rows(node: cv2.FileNode) -> Doubles:
    return np.asarray([_read_numbers(node.at(k)) for k in range(node.size())], np.float64)


def _read_libsvm(model: str, ranges: str) -> Brisque:
    head, mark, rows = model.partition("\nSV\n")
    values = dict(line.split(" ", 1) for line in head.splitlines() if " " in line)
    if not mark or (values.get("svm_type"), values.get("kernel_type")) != ("epsilon_svr", "rbf"):
        raise ValueError("the model is no epsilon_svr with the kernel rbf")
    lines = [line.split() for line in rows.splitlines() if line.strip()]
    vectors = np.zeros((len(lines), FEATURES))
    for row, (_, *entries) in zip(vectors, lines, strict=True):
        for number, value in (entry.split(":") for entry in entries):  # zeros are left out
            row[_check_number(number)] = float(value)
    weights = np.asarray([float(line[0]) for line in lines])
    first, limits, *others = [line.split() for line in ranges.splitlines() if line.strip()]
    if first != ["x"]:
        raise ValueError("the ranges do not begin with a line 'x', as svm-scale's do")
    both = np.zeros((2, FEATURES))
    for number, low, high in others:
        both[:, _check_number(number)] = float(low), float(high)
    scaled = float(limits[0]), float(limits[1])
    return Brisque(vectors, weights, float(values["rho"]), float(values["gamma"]), both, scaled)


def _check_number(text: str) -> int:
    """Return the place of the feature of a number, which begins at 1."""
    if not 1 <= int(text) <= FEATURES:
        raise ValueError(f"feature {text}; BRISQUE has {FEATURES}")
    return int(text) - 1
