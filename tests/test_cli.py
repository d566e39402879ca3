"""The command line: run, study, results, verify, predict; wrong input is one sentence, and its exit code 2."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import made_up
import pytest
from PIL import Image

from report_lib import __main__ as main_module
from report_lib import config as configs
from report_lib import data, evidence, runs
from report_lib.__main__ import main, parser
from report_lib.config import PARAMETERS, parameters
from report_lib.files import PROJECT, InputError
from report_lib.runs import train as runner

SMALL = ["--network", "mobilenet_v3_small", "--weights", "none", "--image-size", "32", "--batch-size", "4", "--epochs",
         "1", "--precision", "float32", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def options(tree, tmp_path):
    """What makes a run that takes a second."""
    return [*SMALL, "--data", str(tree()), "--runs", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]


@pytest.fixture
def parameters_file(tree, tmp_path):
    """The validated parameters of a small study."""
    path = tmp_path / "a folder" / "parameters.yaml"
    given = [*SMALL, "--data", str(tree()), "--runs", str(tmp_path / "a b $c"), "--seeds", "0,1"]
    assert main(["study", *given, "--presets", "corrected,tuned", "--output", str(path)]) == 0
    return path


# --- what cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--trunk-rate", "0.5"], "trunk_rate is 0.5; only approaches that train last_block or all have that"),
        (["--epochs", "-1"], "epochs is -1"),
        (["--epochs", "9" * 4000], "epochs is '999"),
        (["--epochs", "1.5"], "epochs is '1.5'"),
        (["--seed", "9" * 4000], "seed is '999"),
        (["--seed", "-3"], "seed is -3"),
        (["--seed", "1e3"], "seed is '1e3'"),
        (["--preset", "best"], "preset is 'best'"),
        (["--budgets", "9" * 5000], "budgets is "),
        (["--budgets", "5:5"], "budgets is "),
        (["--profile", "x" * 5000], "profile is 'xxx"),
        (["--profile", "nope"], "profile is 'nope'"),
        (["--runs", "~nobody-here/x"], "'~nobody-here/x' can be no path"),
        (["--data", "no/such/tree"], "data is "),
        (["--weights", "no/such.pth"], "weights is "),
        (["--network", "alexnet2"], "network is 'alexnet2'"),
        (["--learning-rate", "nan"], "learning_rate is nan"),
        (["--learning-rate", "0"], "learning_rate is 0.0"),
        (["--flip", "perhaps"], "flip is 'perhaps'"),
        (["--image-size", "8"], "image_size is 8"),
        (["--batch-size", "5000", "--image-size", "63"], "batch_size is 5000"),
        (["--val-fraction", "1.5"], "val_fraction is 1.5"),
        (["--device", "tpu"], "device is 'tpu'"),
    ],
)
def test_a_wrong_value_is_one_sentence_on_stderr(given, says, capsys):
    assert main(["run", "--approach", "linear_probe", *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and says in err and err.count("\n") == 1 and len(err) < 1000


@pytest.mark.parametrize(
    "arguments",
    [["walk"], ["run", "--approach", "x"], [], ["run", "--approach", "linear_probe", "--epoch", "3"], ["results"],
     ["run", "--approach", "linear_probe", "--index", "x"], ["predict", "x.png"], ["verify"]],
)  # fmt: skip
def test_wrong_options_are_one_sentence_on_stderr(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "one of --approach, or --study with --index"),
        (["run", "--study", "{file}"], "index is None; the study has the runs 0 to 7"),
        (["run", "--study", "{file}", "--index", "8"], "index is 8; the study has the runs 0 to 7"),
        (["run", "--study", "{file}", "--index", "0", "--seed", "7"], "--study says which run, and --seed too"),
        (["run", "--approach", "linear_probe", "--index", "0"], "--index is the number of a run of --study"),
        (["predict", "x.png", "--run", "no/such/record", "--top", "0"], "top is 0; allowed are whole numbers from 1"),
        (["run", "--study", "no.yaml", "--index", "0"], "no.yaml is no file of parameters"),
        (["study", "no.yaml"], "no.yaml is no file of parameters"),
        (["study", "{file}", "--complete"], "8 of 8 runs are not in "),
        (["results", "{file}", "--output", "{file}.json"], "has no finished run of linear_probe"),
        (["verify", "no/such/record"], "profile is"),
        (["verify", "{file}"], "has no finished run of linear_probe"),
        (["predict", "x.png", "--run", "no/such/record"], "no/such/record is no record of a run"),
    ],
)
def test_what_is_not_there_is_one_sentence(parameters_file, capsys, arguments, says):
    capsys.readouterr()
    assert main([argument.replace("{file}", str(parameters_file)) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and re.search(says, err) and err.count("\n") == 1


def test_output_that_nobody_reads_ends_quietly(parameters_file):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "report_lib", "study", str(parameters_file)],
        cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupt)
    assert main(["run", "--approach", "linear_probe"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_fault_of_the_machine_is_one_sentence_and_exit_code_1(monkeypatch, capsys):
    def broken(*_, **__):
        raise OSError(5, "Input/output error", "a/disk")

    monkeypatch.setattr(runner, "run", broken)
    assert main(["run", "--approach", "linear_probe"]) == 1
    assert capsys.readouterr().err == "error: Input/output error (a/disk)\n"


def test_help_and_a_wrong_value_need_no_torch():
    code = (
        "import sys; from report_lib.__main__ import main\n"
        "assert main(['run', '--approach', 'linear_probe', '--epochs', '0']) == 2\n"
        "assert main(['study', '--table']) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=PROJECT)


def test_every_parameter_is_an_option_and_explained(capsys):
    for step in ("run", "study"):
        with pytest.raises(SystemExit) as ended:
            main([step, "--help"])
        text = capsys.readouterr().out
        assert ended.value.code == 0 and all(f"--{name.replace('_', '-')}" in text for name in PARAMETERS)
    assert main(["study", "--table"]) == 0
    rows = capsys.readouterr().out
    assert all(parameters.variable(name) in rows for name in PARAMETERS)


def test_every_step_has_a_help():
    (steps,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(steps.choices) == {"run", "study", "results", "verify", "predict"}
    assert all(choice.help for choice in steps._choices_actions)


# --- run -------------------------------------------------------------------------------------------------------


def test_run_trains_prints_the_record_and_does_not_train_twice(options, capsys, tmp_path, monkeypatch):
    arguments = ["run", "--approach", "linear_probe", *options]
    assert main(arguments) == 0
    first = capsys.readouterr().out.strip()
    assert first.startswith(str(tmp_path / "store" / "linear_probe-corrected-seed0-"))
    monkeypatch.setattr(runner, "make", None)
    assert main(arguments) == 0 and capsys.readouterr().out.strip() == first
    assert main([*arguments, "--json"]) == 0
    answer, info = json.loads(capsys.readouterr().out), runs.store.load(Path(first)).info
    assert answer.pop("record") == first and answer == {name: info[name] for name in answer} and len(answer) == 5


def test_a_run_may_have_another_seed_than_the_profile_plans_for(tmp_path, monkeypatch):
    """What else a profile plans, such as defects, is no business of one run."""
    monkeypatch.setattr(parameters, "profiles", lambda: tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "presets: corrected,tuned\nseeds: 0,1\ndefects: full_finetune\nbudgets: 5,10\nepochs: 3\n"
    )
    asked = []
    monkeypatch.setattr(runner, "run", lambda config, *_, **__: asked.append(config) or sys.exit())
    for more in (["--preset", "tuned"], ["--per-class", "7", "--epochs", "2"]):
        with pytest.raises(SystemExit):
            main(["run", "--profile", "mine", "--approach", "full_finetune", "--seed", "3", *more])
    assert [(config.seed, config.preset, config.epochs) for config in asked] == [(3, "tuned", 3), (3, "corrected", 2)]
    assert asked[1].per_class == 7


def test_paths_start_at_the_working_folder(tree, tmp_path, monkeypatch):
    tree()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(runner, "run", lambda *given: asked.append(given) or sys.exit())
    with pytest.raises(SystemExit):
        main(["run", "--approach", "linear_probe", "--data", "tree", "--runs", "store", "--cache", "cache"])
    ((config, store, cache, device, *_, keep, _),) = asked
    assert (PROJECT / config.data).resolve() == (tmp_path / "tree").resolve()
    assert (PROJECT / store).resolve() == (tmp_path / "store").resolve() and cache == str(tmp_path / "cache")
    assert device == "auto" and keep


# --- study -----------------------------------------------------------------------------------------------------


def test_the_runs_of_a_study_are_listed_and_run_by_number(parameters_file, tmp_path, capsys, monkeypatch):
    capsys.readouterr()
    assert main(["study", str(parameters_file)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    study = runs.Study.load(str(parameters_file))
    names = [study.name(config) for _, config in study.configs()]
    assert [(int(number), name) for number, _, name in rows] == list(enumerate(names)) and len(names) == 8
    assert {state for _, state, _ in rows} == {"missing"}
    for number in (0, 5):
        assert main(["run", "--study", str(parameters_file), "--index", str(number)]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "a b $c" / names[number])
    assert main(["study", str(parameters_file)]) == 0
    finished = [line.split("\t")[1] == "finished" for line in capsys.readouterr().out.splitlines()]
    assert [number for number, done in enumerate(finished) if done] == [0, 5]
    for number in range(8):
        assert main(["run", "--study", str(parameters_file), "--index", str(number)]) == 0
    monkeypatch.setattr(data, "load", None)
    assert main(["study", str(parameters_file), "--complete"]) == 0
    assert f"all 8 runs are in {tmp_path / 'a b $c'}" in capsys.readouterr().out
    kept = {run.path.name for run in study.all_runs if (run.path / "weights.safetensors").exists()}
    assert kept == {
        run.path.name for run in study.all_runs if study.keeps(run.config) or run.approach == "linear_probe"
    }


def test_a_study_is_prepared_before_anything_long_begins(parameters_file, tmp_path, capsys):
    assert main(["study", str(parameters_file), "--prepare"]) == 0
    names, text = capsys.readouterr()
    assert "8 runs, 0 of them finished; the others take about" in text and str(tmp_path / "a b $c") in text
    assert names.split() == runs.Study.load(str(parameters_file)).missing()
    assert list((tmp_path / "cache").iterdir()), "the images are decoded"
    assert main(["study", str(parameters_file), "--prepare", "--batch-size", "5000"]) == 2
    assert "batch_size is 5000; allowed is at most the" in capsys.readouterr().err


def test_a_store_that_has_every_run_need_not_be_written(parameters_file, monkeypatch, capsys):
    def refused(path, name):
        raise InputError(f"{name} is {str(path)!r}, where nothing can be written")

    monkeypatch.setattr(main_module, "check_writable", refused)
    assert main(["study", str(parameters_file), "--prepare"]) == 2
    assert "where nothing can be written" in capsys.readouterr().err
    monkeypatch.setattr(runs.Study, "missing", lambda study: [])
    assert main(["study", str(parameters_file), "--prepare"]) == 0
    names, text = capsys.readouterr()
    assert "nothing is left to train" in text and names == ""


def test_a_run_that_two_parts_of_a_study_ask_for_counts_once(parameters_file, capsys):
    assert main(["study", str(parameters_file), "--per-class", "5", "--budgets", "5", "--prepare"]) == 0
    configs = [c for _, c in runs.Study.load(str(parameters_file), per_class=5, budgets=(5,)).configs()]
    assert len(set(configs)) < len(configs)
    names, text = capsys.readouterr()
    assert f"{len(set(configs))} runs, 0 of them finished" in text and len(names.split()) == len(set(configs))


def test_what_is_not_run_and_what_validates_nothing_is_said(tree, tmp_path, capsys):
    root = tree(("cat", "dog"), train=8)
    for number in range(1, 8):
        (root / "train" / "dog" / f"{number:03d}.png").unlink()
    given = [*SMALL, "--data", str(root), "--runs", str(tmp_path / "runs"), "--presets", "tuned", "--present", "tuned"]
    assert main(["study", *given, "--controls", "true", "--prepare"]) == 0
    said = capsys.readouterr().err
    assert "not run: controls (" in said and "presets: tuned" in said
    assert "no image of 'dog' validates: a class needs 3 training images for that" in said


@pytest.mark.parametrize(
    ("more", "told"), [(["tuned"], True), (["tuned", "--per-class", "100"], False), (["corrected"], False)]
)
def test_who_has_few_labels_and_does_not_say_so_is_told(tree, tmp_path, capsys, more, told):
    given = [*SMALL, "--data", str(tree(train=8)), "--runs", str(tmp_path / "runs"), "--present", more[0]]
    assert main(["study", *given, "--prepare", "--presets", *more]) == 0
    assert ("about 8 labels per class, but tuned takes the settings for many" in capsys.readouterr().err) == told


def test_a_study_of_a_single_class_is_refused(tree, tmp_path, capsys):
    given = [*SMALL, "--data", str(tree(("cat",))), "--runs", str(tmp_path / "runs")]
    assert main(["study", *given, "--prepare"]) == 2
    assert "data has 1 class ('cat'); a classifier needs at least 2" in capsys.readouterr().err


def test_makes_variables_become_parameters(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EPOCHS", "3")
    monkeypatch.setenv("SEEDS", "0,4")
    monkeypatch.setenv("PROFILE", "yours")
    monkeypatch.setenv("DEVICE", "cpu")
    path = tmp_path / "parameters.yaml"
    assert main(["study", "--make", "EPOCHS SEEDS PROFILE", "--output", str(path)]) == 0
    assert "DEVICE is set in the environment and not used" in capsys.readouterr().err
    written = configs.resolve(str(path))
    assert (written["epochs"], written["seeds"], written["profile"]) == (3, (0, 4), "yours")
    assert written["device"] == configs.resolve("yours")["device"]
    monkeypatch.setenv("EPOCH", "3")
    assert main(["study", "--make", "EPOCH", "--output", str(path)]) == 2
    assert "make has no variable EPOCH; did you mean EPOCHS?" in capsys.readouterr().err


def test_the_heading_is_what_the_study_calls_itself(capsys):
    assert main(["study", "--profile", "demo", "--title", "Mine", "--course", "CS 1", "--heading"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "title=Mine" in lines and "course=CS 1" in lines
    assert main(["study", "--profile", "demo", "--title", "Mine,\nset=x", "--heading"]) == 0
    assert "title=Mine, set=x" in capsys.readouterr().out.splitlines()
    given = ["--profile", "demo", "--network", "resnet18", "--weights", "none"]
    assert main(["study", *given, "--heading"]) == 0
    title = [line for line in capsys.readouterr().out.splitlines() if line.startswith("title=")]
    own = configs.resolve("demo")["title"]
    assert title == [f"title={own or 'Adapting a pretrained ResNet-18'}"]


# --- results, verify, predict ----------------------------------------------------------------------------------


def test_results_are_written_whole(study, tmp_path, monkeypatch):
    finished = study(0.8)
    monkeypatch.setattr(runs.Study, "load", classmethod(lambda cls, *_, **__: made_up.again(finished)))
    assert main(["results", str(tmp_path / "parameters.yaml"), "--output", str(tmp_path / "results.json")]) == 0
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert list(numbers["approaches"]) == list(configs.APPROACHES)
    monkeypatch.setattr(evidence, "report_numbers", lambda *_: {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        main(["results", str(tmp_path / "parameters.yaml"), "--output", str(tmp_path / "results.json")])
    assert json.loads((tmp_path / "results.json").read_text()) == numbers


def test_a_trained_network_says_what_it_sees(options, tmp_path, capsys, monkeypatch):
    assert main(["run", "--approach", "linear_probe", *options]) == 0
    record = capsys.readouterr().out.strip()
    picture = tmp_path / "tree" / "test" / "cat" / "000.png"
    large = tmp_path / "large.jpg"
    Image.open(picture).resize((300, 200)).save(large)
    monkeypatch.chdir(tmp_path)  # a path that is typed starts at the working folder
    relative = [os.path.relpath(path, tmp_path) for path in (picture, large)]
    assert main(["predict", *relative, "--run", os.path.relpath(record, tmp_path), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == relative
    for answer in answers:
        assert {each["class"] for each in answer["classes"]} == {"cat", "dog"}
        assert sum(each["probability"] for each in answer["classes"]) == pytest.approx(1)
    picture = picture.rename(tmp_path / "kept.png")
    shutil.rmtree(tmp_path / "tree")  # a trained network is used where its training images are not
    assert main(["predict", str(picture), "--run", record, "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = answers[0]["classes"][0]
    assert lines == [str(picture), f"  {100 * best['probability']:5.1f} %  {best['class']}"]
    none, pipe = tmp_path / "none.png", tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert main(["predict", str(none), str(picture), str(pipe), "--run", record, "--json"]) == 2
    said = capsys.readouterr()  # one that cannot be read keeps none of the others from an answer
    first, second, third = map(json.loads, said.out.splitlines())
    assert "none.png" in first["error"] and second["image"] == str(picture) and second["classes"]
    assert "a pipe or a device" in third["error"] and said.err.count("error: ") == 2


def test_verify_takes_a_records_folder_or_a_studys_parameters(parameters_file, capsys):
    assert main(["run", "--study", str(parameters_file), "--index", "0"]) == 0
    record = capsys.readouterr().out.strip().splitlines()[-1]
    for name in (record, str(parameters_file)):
        with pytest.MonkeyPatch.context() as patch:
            if name != record:
                patch.setattr(runs.Study, "first", property(lambda study: runs.store.load(Path(record))))
            assert main(["verify", name, "--device", "cpu"]) == 0
            assert "the same, bit for bit" in capsys.readouterr().out
