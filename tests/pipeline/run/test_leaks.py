"""`verify` reports a clean picture that is in two splits, equal or nearly equal, in every layout."""

import numpy as np
import pytest
from support.dataset_runs import make_finished_run, make_noise, make_row

from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run
from rasura.pipeline.run.verify import verify_dataset


def _rows(near: bool):
    target = make_noise(50)
    rows = [make_row(number, target=make_noise(number)) for number in range(10)]
    nearly = np.clip(target.astype(int) + np.random.default_rng(1).normal(0, 3, target.shape), 0, 255).astype(np.uint8)
    for row, picture in ((rows[1], target), (rows[2], nearly if near else make_noise(60))):
        row |= {"target": picture, "source": picture, "foreground_mask": np.ones(picture.shape[:2], bool)}
    assert (rows[1]["split"], rows[2]["split"]) == ("test", "train")
    return rows


@pytest.mark.parametrize("layout", ["huggingface", "ober", "rorem"])
@pytest.mark.parametrize("near", [True, False])
def test_a_near_duplicate_in_another_split_is_a_fault(tmp_path, layout, near):
    run = make_finished_run(tmp_path / "run", _rows(near))
    export_run(run, Store(tmp_path / "out"), layout)
    faults = [fault for fault in verify_dataset(Store(tmp_path / "out")) if "in split" in fault]
    assert len(faults) == near
    assert all("'test'" in fault and "'train'" in fault for fault in faults)
