"""What a stage made is checked: columns that it declares, with values of their kinds."""

from typing import Any

import numpy as np
import pytest

from rasura.manifests.schemas import Kind
from rasura.pipeline.engine.outputs import find_output_fault

COLUMNS = {"id": Kind.STRING, "sharpness": Kind.FLOAT, "source": Kind.RGB}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({}, "it left out 'sharpness', a column that it declares"),
        ({"sharpness": "high"}, "column 'sharpness' is 'high' (str), but its kind is float64"),
        ({"sharpness": 1.0, "source": "a.png"}, "column 'source' is 'a.png' (str), but its kind is rgb"),
        ({"sharpness": 1.0, "other": 2}, "it made columns that it does not declare: other"),
        ({"sharpness": np.float32(1)}, None),
        ({"sharpness": None}, None),
    ],
)
def test_outputs_fit_the_columns(output: dict[str, Any], message: str | None) -> None:
    """A fault names the column; None is a value that every column may have."""
    text = find_output_fault(COLUMNS, {"id": "a", "source": None}, output)
    assert text is None if message is None else message in str(text)
