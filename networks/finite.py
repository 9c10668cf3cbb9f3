"""Values that networks compute, checked for being numbers: NaN compares with nothing, and as a grey level is black."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.manifests.errors import InputError

Array = npt.NDArray[Any]


class NotFinite(InputError):
    """What a network computed is not finite: neither a picture nor a decision. It costs the row that it was run for."""


def check_finite(values: Array, what: str) -> None:
    """Check that what a network computed are finite numbers.

    Args:
        what: what they are, for the error.

    Raises:
        NotFinite

    Examples:
        >>> check_finite(np.array([0.0, np.nan]), "the picture")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        rasura.networks.finite.NotFinite: a network computed no finite numbers for 50.00% of the picture: ...
    """
    finite = np.isfinite(values)
    if not finite.all():
        raise NotFinite(
            f"a network computed no finite numbers for {1 - finite.mean():.2%} of {what}: its weights are damaged, or "
            "its values are too large for the precision in which it runs (`dtype: float32` has room for most)"
        )


def to_uint8(values: Array) -> Array:
    """Return grey levels, uint8, of values in [0, 1]: cut to that range and rounded.

    Raises:
        NotFinite: a value is not finite.

    Examples:
        >>> to_uint8(np.array([-0.5, 0.5, 2.0])).tolist()
        [0, 128, 255]
    """
    check_finite(values, "the picture")
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)


class CheckedSession:
    """An inference session of ONNX Runtime whose outputs hold no NaN; its methods are those of the session."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """Return the outputs.

        Raises:
            NotFinite: one of them holds NaN. Infinity is left to who reads it: some networks mark places with it.
        """
        outputs: list[Array] = self.session.run(names, dict(feeds))
        for output in outputs:
            if np.asarray(output).dtype.kind == "f" and np.isnan(output).any():
                check_finite(np.asarray(output), "its output")
        return outputs
