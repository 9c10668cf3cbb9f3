"""A pickle's plain values are read; whatever else it asks for is refused by name, and nothing of it is imported."""

import pickle
import random
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rasura.manifests.foreign import plain_pickles
from rasura.manifests.foreign.plain_pickles import Array, NotPlain, decompress, read_pickle

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
VALUES: dict[str, Any] = {
    "texts": {"a": "\N{SNOWMAN}", "b": b"\x00\xff", 3: None},
    "numbers": [0, -1, 255, 65_536, 10**12, -(10**30), 1.5, True, False],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, (4,))),
    "scalars": [np.float32(0.25), np.int64(-7), np.bool_(True)],
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_and_arrays_come_back_as_they_are(protocol: int) -> None:
    assert read_pickle(pickle.dumps(VALUES, protocol)) == VALUES
    arrays = [
        PIXELS,
        PIXELS[:, ::2],
        np.asfortranarray(PIXELS),
        PIXELS.astype(">i4"),
        PIXELS.astype(np.float16),
        PIXELS > 5,
        np.zeros((0, 3), np.int16),
    ]
    for array, value in zip(arrays, read_pickle(pickle.dumps([*arrays, *arrays], protocol))[7:], strict=True):
        assert isinstance(value, Array)
        assert value.values is not None
        assert value.values.dtype == array.dtype
        assert (value.values == array).all()
    for picture in (Image.fromarray(PIXELS), Image.fromarray(PIXELS[..., 0])):
        assert (read_pickle(pickle.dumps(picture, protocol)).values == np.asarray(picture)).all()


class Called:
    """A value whose pickle runs a program."""

    def __reduce__(self) -> Any:
        return (exec, ("import sys; sys.was_executed = True",))


HOSTILE = {
    "a call": (pickle.dumps({"a": [Called()]}), "builtins.exec"),
    "a call of protocol 0": (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
    "a class": (pickle.dumps(np.ma.array([1])), "numpy.ma"),
    "a module that does not exist": (b"\x80\x04\x8c\x07missing\x8c\x01x\x93.", "missing.x"),
    "a name inside an allowed one": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "numpy.dtype.__init__"),
    "an array of objects": (pickle.dumps(np.array([None], object)), "'O8'"),
    "an array of records": (pickle.dumps(np.zeros(2, [("a", "u1")])), "'V1'"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "a persistent id": (b"\x80\x02K\x01Q.", "BINPERSID"),
    "an array called as a function": (b"\x80\x02cnumpy\nndarray\n)R.", "numpy.ndarray"),
    "a state for a dict": (b"\x80\x02}}b.", "state of a dict"),
    "a memory of 4 billion": (b"\x80\x02Nj\xff\xff\xff\xff.", "damaged"),
    "a group without a mark": (b"\x80\x02Nt.", "without a beginning"),
    "more than one value": (b"\x80\x02NN.", "damaged"),
    "nothing": (b"", "damaged"),
    "a key that is deep": (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.", "a key"),
    "a step that no value needs": (b"\x80\x02NN0.", "POP"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_everything_else_is_refused_by_name(name: str) -> None:
    data, word = HOSTILE[name]
    before = set(sys.modules)
    with pytest.raises(NotPlain, match=word.replace("(", r"\(")):
        read_pickle(data)
    assert set(sys.modules) == before
    assert not hasattr(sys, "was_executed")


def test_damaged_pickles_are_refused_wherever_they_are_damaged() -> None:
    """Every cut, and 3,000 random changes: a value, or `NotPlain`; no other error, and nothing that takes long."""
    data = pickle.dumps({"pixels": PIXELS, "picture": Image.fromarray(PIXELS), "numbers": VALUES["numbers"]}, 4)
    for end in range(len(data)):
        with pytest.raises(NotPlain):
            read_pickle(data[:end])
    chance = random.Random(7)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            read_pickle(bytes(changed))
        except NotPlain:
            continue


def test_a_long_pickle_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pickles, "MOST_STEPS", 100)
    with pytest.raises(NotPlain, match="more than 100 instructions"):
        read_pickle(pickle.dumps(list(range(200))))


def test_decompressing_stops_at_its_limit() -> None:
    data = zlib.compress(bytes(10**7))
    assert len(decompress(data, 10**7)) == 10**7
    for broken, word in ((data, "more than 9999999"), (data[:-9], "cut off"), (b"no zlib", "not zlib")):
        with pytest.raises(NotPlain, match=word):
            decompress(broken, 10**7 - (word[0] == "m"))
