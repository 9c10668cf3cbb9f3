"""BRISQUE: features and scores are OpenCV's, by files of OpenCV and of libsvm; other files are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pair_scenes import make_floor

from rasura.manifests.schemas import Kind
from rasura.networks.weights import BadWeights
from rasura.stages.curation.brisque import FEATURES, compute_features, read_brisque, score_brisque
from rasura.stages.curation.measuring import MeasureQuality, QualityParams
from rasura.stages.stage import InvalidValues, Kept

FEATURES_OF_OPENCV = """
1.867 0.3420461 0.782 0.02337317 0.09964857 0.1232954 0.769 0.0308655 0.09440093
0.1255539 0.738 0.0204511 0.1034806 0.1248359 0.754 0.01342394 0.1057376 0.1195694
2.191 0.355535 0.777 0.03171647 0.1165261 0.1517737 0.819 0.03503975 0.1104488
0.148016 0.795 -0.03145888 0.1334116 0.1009826 0.809 -0.02598312 0.1358012 0.1085797
"""
"""Of `make_picture()`, by `cv2.quality.QualityBRISQUE_computeFeatures` of opencv-contrib 5.0.0."""
SCORE_OF_OPENCV = 50.3069
"""Of `make_picture()` with `write_opencv_model`'s files, by `cv2.quality.QualityBRISQUE_compute`."""


def make_picture() -> np.ndarray:
    """A floor with noise and something flat."""
    floor = np.rint(make_floor(72, 96, 41)) + np.random.default_rng(41).integers(-9, 10, (72, 96, 3))
    floor[10:30, 20:60] = 77
    return floor.clip(0, 255).astype(np.uint8)


def make_model() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five support vectors, their weights, and the ranges of the features."""
    rng = np.random.default_rng(42)
    vectors = np.round(rng.uniform(-1, 1, (5, FEATURES)), 4)
    ranges = np.stack([np.full(FEATURES, -0.5), np.linspace(1, 5, FEATURES).round(3)])
    return vectors, np.array([900.0, -512.5, 1024.0, 300.25, -700.0]), ranges


def write_opencv_model(folder: Path) -> tuple[Path, Path]:
    """Write the model as OpenCV's two files."""
    vectors, weights, ranges = make_model()
    rows = "".join(f"      - [ {', '.join(f'{value:.8e}' for value in row)} ]\n" for row in vectors)
    model, limits = folder / "model.yml", folder / "range.yml"
    model.write_text(
        "%YAML:1.0\n---\nopencv_ml_svm:\n   format: 3\n   svmType: EPS_SVR\n   kernel:\n      type: RBF\n"
        f"      gamma: 0.05\n   C: 1024.\n   p: 0.1\n   var_count: {FEATURES}\n   sv_total: 5\n   support_vectors:\n"
        f"{rows}   decision_functions:\n      -\n         sv_count: 5\n         rho: 290.25\n"
        f"         alpha: [ {', '.join(f'{value:.8e}' for value in weights)} ]\n"
    )
    numbers = ", ".join(f"{value:.8e}" for value in ranges.ravel())
    limits.write_text(
        f"%YAML:1.0\n---\nrange: !!opencv-matrix\n   rows: 2\n   cols: {FEATURES}\n   dt: f\n   data: [ {numbers} ]\n"
    )
    return model, limits


def write_libsvm_model(folder: Path) -> tuple[Path, Path]:
    """Write the same model as libsvm and svm-scale write it."""
    vectors, weights, ranges = make_model()
    model, limits = folder / "allmodel", folder / "allrange"
    lines = [
        f"{w} " + " ".join(f"{k}:{v}" for k, v in enumerate(row, 1)) for w, row in zip(weights, vectors, strict=True)
    ]
    head = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 5\nrho 290.25\nSV\n"
    model.write_text(head + " \n".join(lines) + " \n")
    limits.write_text("x\n-1 1\n" + "".join(f"{k} {low} {high}\n" for k, (low, high) in enumerate(ranges.T, 1)))
    return model, limits


def test_features_and_scores_are_those_of_opencv(tmp_path: Path) -> None:
    picture = make_picture()
    features = compute_features(picture)
    assert features is not None
    assert features == pytest.approx([float(value) for value in FEATURES_OF_OPENCV.split()], rel=1e-5)
    for files in (write_opencv_model(tmp_path), write_libsvm_model(tmp_path)):
        assert score_brisque(picture, read_brisque(*files)) == pytest.approx(SCORE_OF_OPENCV, abs=1e-3)


def test_odd_pictures_have_no_score(tmp_path: Path) -> None:
    """Flat and tiny ones; all others a score between 0 and 100."""
    model = read_brisque(*write_opencv_model(tmp_path))
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (15, 400), (40, 40)):
        assert score_brisque(np.full((*shape, 3), 128, np.uint8), model) is None
    for shape in ((16, 16), (17, 301)):
        score = score_brisque(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), model)
        assert score is not None
        assert 0 <= score <= 100


@pytest.mark.parametrize("form", ["opencv", "libsvm"])
def test_damaged_and_other_models_are_refused(form: str, tmp_path: Path) -> None:
    model, limits = (write_opencv_model if form == "opencv" else write_libsvm_model)(tmp_path)
    text, ranges = model.read_text(), limits.read_text()
    changes: list[Any] = [
        (text.replace("EPS_SVR", "C_SVC").replace("epsilon_svr", "c_svc"), ranges),
        (text.replace("RBF", "LINEAR").replace("rbf", "linear"), ranges),
        (text[: len(text) // 2], ranges),
        (text, ranges[:60]),
        (text.replace("5.00000000e-02", "nan"), ranges.replace("e-01", "e-01x").replace("-0.5", "?")),
        ("", ranges),
        (text, ""),
        ("hello", "there"),
        (ranges, text),
    ]
    for changed, others in changes:
        model.write_text(changed)
        limits.write_text(others)
        with pytest.raises(BadWeights, match=r"BRISQUE|features|numbers"):
            read_brisque(model, limits)


def test_the_stage_has_the_column_only_where_the_files_are_given(tmp_path: Path) -> None:
    model, limits = write_opencv_model(tmp_path)
    schema = {"id": Kind.STRING, "source": Kind.RGB}
    assert "quality_brisque" not in MeasureQuality(QualityParams()).schema(schema)
    with pytest.raises(InvalidValues, match="belong together"):
        QualityParams(brisque_model=str(model))
    stage = MeasureQuality(QualityParams(brisque_model=str(model), brisque_range=str(limits)))
    assert stage.schema(schema)["quality_brisque"] == Kind.FLOAT
    assert stage.weights() == {"brisque_model": model, "brisque_range": limits}
    stage.setup()
    outcome = stage.process_one({"id": "a", "source": make_picture()})
    assert isinstance(outcome, Kept)
    assert outcome.records[0]["quality_brisque"] == pytest.approx(SCORE_OF_OPENCV, abs=1e-3)
    assert set(outcome.records[0]) == {"id", "source", *stage.gives, "quality_brisque"}
