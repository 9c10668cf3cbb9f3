"""Helpers for tests of networks: pictures, a small vocabulary, and comparison of two lists of boxes."""

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [".", ",", "?", "##s", "a", "the", "red", "hot"]
NAMES = ["cat", "dog", "car", "traffic", "light", "potted", "plant", "person"]
WORDS = SPECIAL + LETTERS + NAMES
CLASSES = ("cat", "Traffic Light", "dog")
SIZES = ((100, 140), (140, 100), (60, 31), (100, 140), (1, 7))


def make_noise(sizes=SIZES):
    """Make noise of several sizes, two of one size; read-only, as the engine gives pictures to stages."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for picture in pictures:
        picture.flags.writeable = False
    return pictures


def make_tokenizer():
    """Make BERT's tokenizer with the words above."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={word: k for k, word in enumerate(WORDS)})


def check_boxes(detections, boxes, scores, tolerance=1e-3):
    """Assert that detections have these boxes and scores, in this order."""
    assert len(detections) == len(scores)
    assert np.allclose([detection.score for detection in detections], scores, atol=1e-6)
    assert np.allclose(
        np.reshape([detection.box for detection in detections], (-1, 4)), np.reshape(boxes, (-1, 4)), atol=tolerance
    )


def check_detections(first, second, tolerance=1e-3):
    """Assert that two lists of detections are equal."""
    assert [detection.label for detection in first] == [detection.label for detection in second]
    check_boxes(first, [detection.box for detection in second], [detection.score for detection in second], tolerance)
