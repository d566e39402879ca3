import os

import numpy as np
import pytest

from report_lib import records
from report_lib.recipe import InputError

EPOCHS = [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}]
ARRAYS = {"test_logits": np.eye(3, dtype=np.float32), "test_labels": np.arange(3)}


def test_a_record_comes_back_as_it_was(tmp_path):
    path = records.save(tmp_path / "store", "run", {"recipe": {"approach": "a", "seed": 4}}, EPOCHS, ARRAYS)
    run = records.load(path)
    assert run.approach == "a" and run.seed == 4 and run.epochs.to_dict("records") == EPOCHS
    assert all(np.array_equal(run.predictions()[name], value) for name, value in ARRAYS.items())
    assert sorted(os.listdir(tmp_path / "store")) == ["run"] and path.stat().st_mode & 0o777 == 0o755


def test_a_record_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        records.save(tmp_path, "run", {}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == [] and not records.exists(tmp_path, "run")


def test_no_number_that_json_lacks_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        records.save(tmp_path, "run", {"test_loss": float("nan")}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == []


def test_the_second_of_two_equal_runs_changes_nothing(tmp_path):
    first = records.save(tmp_path, "run", {"by": 1}, EPOCHS, ARRAYS)
    assert records.save(tmp_path, "run", {"by": 2}, EPOCHS, ARRAYS) == first
    assert records.load(first).info == {"by": 1} and os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("name", ["run.json", "epochs.csv", "predictions.npz"])
def test_a_damaged_record_says_so(tmp_path, name):
    path = records.save(tmp_path, "run", {}, EPOCHS, ARRAYS)
    (path / name).write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read.*remove that folder"):
        records.load(path).predictions()


def test_predictions_are_never_unpickled(tmp_path):
    path = records.save(tmp_path, "run", {}, EPOCHS, {"test_logits": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="allow_pickle"):
        records.load(path).predictions()


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "note.json"
    records.write_whole(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        records.write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["note.json"]
