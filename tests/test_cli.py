import os
import subprocess
import sys

import pytest

from report_lib import profiles
from report_lib.__main__ import main
from report_lib.recipe import PROJECT


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", "-1"], "epochs is -1"),
        (["--epochs", "9" * 4000], "epochs is 999"),
        (["--seed", "9" * 4000], "seeds is [999"),
        (["--recipe", "budget:" + "9" * 5000], "budgets is '999"),
        (["--recipe", "budget:5:5"], "budgets is '5:5'"),
        (["--profile", "x" * 5000], "profile is 'xxx"),
        (["--runs", "~nobody-here/x"], "'~nobody-here/x' can be no path"),
        (["--cache", "~nobody-here/x", "--data", "no/such/tree"], "data is "),
        (["--learning-rate", "nan"], "learning_rate is nan"),
        (["--learning-rate", "0"], "learning_rate is 0.0"),
        (["--data", "no/such/tree"], "data is "),
        (["--weights", "no/such.pth"], "weights is "),
        (["--profile", "nope"], "profile is 'nope'"),
        (["--seed", "-3"], "seed"),
        (["--image-size", "8"], "image_size is 8"),
        (["--batch-size", "5000"], "batch_size is 5000"),
        (["--val-fraction", "1.5"], "val_fraction is 1.5"),
    ],
)
def test_a_wrong_value_is_one_sentence_on_stderr(options, says, capsys):
    assert main(["run", "--approach", "linear_probe", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["run", "--approach", "linear_probe", "--seed", "1e3"], ["run"], ["walk"], ["run", "--approach", "x"], []],
)
def test_wrong_options_are_one_sentence_on_stderr(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_output_that_nobody_reads_ends_quietly(tmp_path):
    (tmp_path / "parameters.yaml").write_text("epochs: 1\n")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "report_lib", "jobs", str(tmp_path / "parameters.yaml")],
        cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_run_trains_prints_the_record_and_does_not_train_twice(capsys, tmp_path, monkeypatch):
    arguments = ["run", "--approach", "linear_probe", "--epochs", "1", "--image-size", "63", "--device", "cpu"]
    assert main([*arguments, "--runs", str(tmp_path / "store")]) == 0
    first = capsys.readouterr().out.strip()
    assert first.startswith(str(tmp_path / "store" / "linear_probe-corrected-seed0-"))
    monkeypatch.setattr("report_lib.runner.make", None)
    assert main([*arguments, "--runs", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out.strip() == first


def test_a_run_may_have_another_seed_than_the_profile_plans_for(tmp_path, monkeypatch, capsys):
    """What else a profile plans, such as defects with seeds of their own, is no business of one run."""
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "recipes: corrected,tuned\nseeds: 0,1\nextra_seeds: 0,1\ndefects: full_finetune@0+1\nbudgets: 5,10\n"
    )
    asked = []
    monkeypatch.setattr("report_lib.runner.run", lambda recipe, *_: asked.append(recipe) or sys.exit())
    for what in ("tuned", "budget:7", "defect:dropout_ends"):
        with pytest.raises(SystemExit):
            main(["run", "--profile", "mine", "--approach", "full_finetune", "--recipe", what, "--seed", "3"])
    assert [(one.seed, one.recipe) for one in asked] == [(3, "tuned"), (3, "tuned"), (3, "corrected")]
    assert asked[1].per_class == 7 and asked[2].dropout_ends


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("report_lib.runner.run", interrupt)
    assert main(["run", "--approach", "linear_probe"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys; from report_lib.__main__ import parser; parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
