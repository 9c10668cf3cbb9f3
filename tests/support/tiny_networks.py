"""What the tests of networks share: pictures, a small vocabulary, and when two lists of boxes are one."""

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [".", ",", "?", "##s", "a", "the", "red", "hot"]
NAMES = ["cat", "dog", "car", "traffic", "light", "potted", "plant", "person"]
WORDS = SPECIAL + LETTERS + NAMES
CLASSES = ("cat", "Traffic Light", "dog")
SIZES = ((100, 140), (140, 100), (60, 31), (100, 140), (1, 7))


def noise(sizes=SIZES):
    """Noise of several sizes, two of one size; read-only, as the engine hands pictures out."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for picture in found:
        picture.flags.writeable = False
    return found


def tokenizer():
    """BERT's, with the words above."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={word: k for k, word in enumerate(WORDS)})


def agree(mine, boxes, scores, tolerance=1e-3):
    """The same boxes with the same scores, in the same order."""
    assert len(mine) == len(scores)
    assert np.allclose([one.score for one in mine], scores, atol=1e-6)
    assert np.allclose(np.reshape([one.box for one in mine], (-1, 4)), np.reshape(boxes, (-1, 4)), atol=tolerance)


def same(first, second, tolerance=1e-3):
    """The same detections."""
    assert [one.label for one in first] == [one.label for one in second]
    agree(first, [one.box for one in second], [one.score for one in second], tolerance)
