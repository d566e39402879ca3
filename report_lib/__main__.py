"""The command line: one run without a notebook, the small steps between make and the notebooks, a trained network.

Exit codes: 0 done, 1 a fault of the machine or of ours, 2 unusable input (with one sentence), 130 interrupted,
143 terminated, 141 nobody reads the output any more.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from report_lib import config as configs
from report_lib.config import APPROACHES, PARAMETERS, PRESETS, parameters
from report_lib.config.parameters import OF_RUNS
from report_lib.config.plan import given, unplanned
from report_lib.files import STORE, InputError, check_writable, folder, locate, read_yaml, shown, write_whole

GOES_ON = "the last checkpoint of a long run is kept, and the same command goes on from it"


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the options in one sentence, like all else here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message[:500]} ({self.prog} --help lists what there is)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not sys.stderr.isatty():
        os.environ.setdefault("REPORT_PROGRESS", "lines")
    try:
        code = options.do(options) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if getattr(options, "json", False):
            print(json.dumps({"error": str(error)}))
        return 2
    except BrokenPipeError:  # as of "| head"; Python's own flush at the end would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"error: {error.strerror or error} ({error.filename or 'no file named'})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {GOES_ON}", file=sys.stderr)
        return 128 + signal.SIGINT


def terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM has come, with which a cluster takes a node back: what was begun is tidied up, once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(2, f"terminated; {GOES_ON}\n".encode())  # not print, in which the signal may have come
    sys.exit(128 + number)


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m report_lib", description=__doc__.splitlines()[0])  # type: ignore
    steps = top.add_subparsers(required=True, metavar="STEP")

    run = steps.add_parser("run", help="train one run, unless the store has it, and print where its record lies")
    run.set_defaults(do=do_run)
    run.add_argument("--study", type=Path, metavar="FILE", help="the parameters of a study, of which --index takes one")
    run.add_argument("--index", type=int, metavar="N", help="the run's number, from 0, as `study FILE` lists them")
    run.add_argument("--approach", choices=APPROACHES, help="or one run by name; other options override its preset")
    run.add_argument("--preset", metavar="|".join(PRESETS), help="default: corrected")
    run.add_argument("--seed", help="default: 0")
    run.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")

    study = steps.add_parser("study", help="the runs of a study: validated, listed, prepared, or looked for")
    study.set_defaults(do=do_study)
    study.add_argument("file", type=Path, nargs="?", help="its parameters; else those of a profile and the options")
    study.add_argument("--output", type=Path, metavar="FILE", help="write the validated parameters")
    study.add_argument("--make", metavar="NAMES", help="make's variables, whose values are in the environment")
    study.add_argument("--prepare", action="store_true", help="fill the image cache, check all, list what is missing")
    study.add_argument("--complete", action="store_true", help="say whether the store has every run")
    study.add_argument("--heading", action="store_true", help="print what its report is called, for `python -m export`")
    study.add_argument("--table", action="store_true", help="print every parameter there is")

    for step in (run, study):
        for name, field in PARAMETERS.items():
            step.add_argument(f"--{name.replace('_', '-')}", dest=f"field_{name}", help=field.metadata["help"])

    results = steps.add_parser("results", help="write every number of a report as JSON")
    results.set_defaults(do=do_results)
    results.add_argument("file", type=Path)
    results.add_argument("--output", required=True, type=Path, metavar="FILE")
    results.add_argument("--published", metavar="FILE", help="the figures of the homework report")
    results.add_argument("--searches", nargs="*", default=[], metavar="FILE", help="the searches behind tuned")

    verify = steps.add_parser("verify", help="make a recorded run again and say whether it came out the same")
    verify.set_defaults(do=do_verify)
    verify.add_argument("record", help="its folder, or the parameters of a study, of which it takes the first run")
    verify.add_argument("--device", choices=parameters.DEVICES, default="auto")
    for step in (run, verify):
        step.add_argument(
            "--cache", default="", metavar="DIR", help="decoded images (default: $REPORT_CACHE or .cache)"
        )

    predict = steps.add_parser("predict", help="what a trained network makes of image files")
    predict.set_defaults(do=do_predict)
    predict.add_argument("images", nargs="+", metavar="IMAGE")
    predict.add_argument("--run", required=True, metavar="RECORD", help="the folder of a finished run")
    predict.add_argument("--top", type=int, default=5, metavar="N", help="classes that are printed (default: 5)")
    predict.add_argument("--json", action="store_true", help="print everything as JSON, an image per line")
    return top


def settings_of(options: argparse.Namespace) -> dict:
    """The study that a file, or a profile and the other options, describe."""
    given_here = {name: text for name in PARAMETERS if (text := getattr(options, f"field_{name}")) is not None}
    typed = parameters.typed(given_here, at_shell=True)
    if getattr(options, "make", None) is not None:
        typed = {"profile": "demo"} | typed | parameters.from_make({n: os.environ[n] for n in options.make.split()})
    profile = typed.pop("profile", None)
    file = options.study if hasattr(options, "study") else options.file
    if file is not None and not file.is_file():
        raise InputError(f"{file} is no file of parameters; `study --output` and make write one")
    return configs.resolve(str(file.absolute()) if file else profile, typed)


def at_shell(path: str) -> str:
    """A path that was typed starts at the working folder; none stays none."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def do_run(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    by_name = [name for name in ("approach", "preset", "seed") if getattr(options, name) is not None]
    if options.study is not None and by_name:
        raise InputError(f"--study says which run, and --{by_name[0]} too; give one of them")
    if options.study is None and options.index is not None:
        raise InputError("--index is the number of a run of --study, which is not given")
    if options.study is not None:
        planned = [config for part in configs.plan(settings) for config in part.configs]
        if options.index is None or not 0 <= options.index < len(planned):
            raise InputError(f"index is {options.index}; the study has the runs 0 to {len(planned) - 1}")
        config = planned[options.index]
    elif options.approach is None:
        raise InputError("one of --approach, or --study with --index, is needed to say which run")
    else:
        typed = {name: settings[name] for name in OF_RUNS if getattr(options, f"field_{name}") is not None}
        fields = given(settings, options.approach) | typed | {"seed": parameters.from_text(options.seed or "0", int)}
        config = configs.preset(options.approach, options.preset or "corrected", **fields)
        # A tuned run's weights are kept where tuned is among the presets.
        settings["presets"] = tuple(dict.fromkeys([*settings["presets"], config.preset]))
    from report_lib.runs import Study  # late, so that --help and a wrong value answer at once

    cache = at_shell(options.cache)
    done = Study.of_settings(settings, cache).run(config, cache=cache)
    if options.json:
        figures = ("selected_epoch", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
        print(json.dumps({"record": str(done.path), **{name: done.info[name] for name in figures}}))
    else:
        print(done.path)


def do_study(options: argparse.Namespace) -> None:
    if options.table:
        for name, variable, default, text in parameters.table():
            print(f"{variable:<14} {text} ({name}: {default or '-'})")
        return
    settings = settings_of(options)
    if (left_out := unplanned(settings)) and not options.heading:
        lacks = "the ladder leads from corrected to tuned, defects and controls are compared with corrected"
        print(f"not run: {', '.join(left_out)} ({lacks}; presets: {', '.join(settings['presets'])})", file=sys.stderr)
    if options.heading:
        sys.stdout.writelines(f"{line}\n" for line in heading(settings))
    elif options.output:
        parameters.write(settings, options.output)
    elif options.prepare:
        prepare(settings)
    else:
        from report_lib.runs import Study

        study = Study.of_settings(settings)
        missing, every = set(study.missing()), [study.name(config) for _, config in study.configs()]
        names = set(every)  # a budget may be a preset's run
        if not options.complete:
            for index, name in enumerate(every):
                print(f"{index}\t{'missing' if name in missing else 'finished'}\t{name}")
        elif missing:
            raise InputError(f"{len(missing)} of {len(names)} runs are not in {study.store}; start make runs again")
        else:
            print(f"all {len(names)} runs are in {study.store}")


def heading(settings: dict) -> list[str]:
    """What the title page takes from the study and not from its metadata, as name=value."""
    given_here = {name: settings[name] for name in ("title", "subtitle", "course")}
    own = {name: " ".join(text.split()) for name, text in given_here.items() if text is not None}  # a line each
    if settings["network"] not in (None, configs.Config.network):
        own = {"title": f"Adapting a pretrained {configs.NETWORKS[settings['network']].name}"} | own
    return [f"{name}={value}" for name, value in own.items()]


def prepare(settings: dict) -> None:
    """Decodes the images and checks data and weights, so that what is wrong is said before anything long begins; prints
    the runs that the store lacks."""
    from report_lib import data, models
    from report_lib.runs import Study

    # Not the device: with a launcher, training happens on another machine.
    try:
        check_writable(folder(settings["runs"], *STORE), "runs")
    except InputError:  # which a store that has every run need not be
        if Study.of_settings(settings).missing():
            raise
    planned = [config for part in configs.plan(settings) for config in part.configs]
    weights = models.load_weights(planned[0].weights, planned[0].network)
    images = data.load(planned[0])
    for config in planned:
        data.check(images, config)
    validating = data.split(images.train_labels, planned[0])[1]
    few = sorted({*range(len(images.classes))} - {*images.train_labels[validating].tolist()})
    if few and len(validating):
        names = f"{images.classes[few[0]]!r}" + f" and {len(few) - 1:,} other classes" * (len(few) > 1)
        least = int(0.5 / planned[0].val_fraction) + 1
        print(f"no image of {names} validates: a class needs {least} training images for that", file=sys.stderr)
    labels = len(images.train_labels) / len(images.classes)
    if "tuned" in settings["presets"] and not settings["per_class"] and labels <= configs.FEW_LABELS:
        print(f"about {labels:,.0f} labels per class, but tuned takes the settings for many, since PER_CLASS was not "
              f"given: with {configs.FEW_LABELS} or less, it takes those for few", file=sys.stderr)  # fmt: skip
    study = Study(settings, images.fingerprint, weights.sha256)
    print(study.disk_needed(images, weights), file=sys.stderr)
    print("".join(f"{name}\n" for name in dict.fromkeys(study.missing())), end="")


def do_verify(options: argparse.Namespace) -> int:
    from report_lib import runs

    record = locate(at_shell(options.record))
    if not record.is_dir():
        record = runs.Study.load(str(record)).first.path
    same, report = runs.verify(record, options.device, at_shell(options.cache))
    print(report)
    return 0 if same else 1


def do_results(options: argparse.Namespace) -> None:
    from report_lib import evidence
    from report_lib.runs import Study

    published: Any = read_yaml(at_shell(options.published)) if options.published else None
    searches = {Path(file).stem: read_yaml(at_shell(file)) for file in options.searches}
    numbers = evidence.report_numbers(Study.load(str(options.file.absolute())), published, searches)
    write_whole(options.output, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def do_predict(options: argparse.Namespace) -> int:
    from report_lib import runs

    if options.top < 1:
        raise InputError(f"top is {options.top}; allowed are whole numbers from 1")
    answer = runs.predictor(runs.store.load(Path(options.run).absolute()))
    failed = 0
    for image in options.images:
        try:
            classes = answer(at_shell(image))["classes"]
        except InputError as error:  # the other images are answered all the same
            failed = 2
            print(f"error: {error}", file=sys.stderr)
            if options.json:
                print(json.dumps({"image": image, "error": str(error)}))
            continue
        if options.json:
            print(json.dumps({"image": image, "classes": classes}))
            continue
        print(image)
        for one in classes[: options.top]:
            print(f"  {100 * one['probability']:5.1f} %  {shown(one['class'])[1:-1]}")
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminated)
    sys.exit(main())
