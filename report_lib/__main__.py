"""The command line: one run without a notebook, and the small steps between make and the notebooks.

Exit codes: 0 done, 1 a fault of the machine or of ours, 2 unusable input (with one sentence), 130 interrupted,
143 terminated, 141 nobody reads the output any more.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from report_lib import plan, profiles
from report_lib.recipe import (
    APPROACHES,
    DEVICES,
    PRECISIONS,
    RECIPES,
    InputError,
    check_writable,
    folder,
    parse_seeds,
    shown,
)


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, with which a cluster takes a node back."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the options in one sentence, like all else here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message[:500]} ({self.prog} --help lists what there is)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not sys.stderr.isatty():
        os.environ.setdefault("REPORT_PROGRESS", "lines")
    try:
        with terminable():
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
    except Terminated:
        print(
            "terminated; the last checkpoint of a long run is kept, and the same command goes on from it",
            file=sys.stderr,
        )
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted; finished epochs of long runs are kept", file=sys.stderr)
        return 128 + signal.SIGINT


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within it, the first SIGTERM raises Terminated, so that what was begun is tidied up."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m report_lib", description=__doc__.splitlines()[0])  # type: ignore
    steps = top.add_subparsers(required=True, metavar="STEP")

    run = steps.add_parser("run", help="train one run, unless the store has it, and print where its record lies")
    run.set_defaults(do=do_run)
    run.add_argument("--approach", required=True, choices=APPROACHES)
    run.add_argument("--recipe", default=plan.MAIN, help="published, corrected, tuned; or defect:NAME, that defect of "
                     "published in corrected; or budget:N, N labels a class (default: corrected)")  # fmt: skip
    run.add_argument("--recipes", metavar="LIST", help="those of the study: budget:N takes tuned if it is among them")
    run.add_argument("--no-mirror", dest="mirror", action="store_false", default=None,
                     help="tuned fine-tuning does not mirror training pictures")  # fmt: skip
    run.add_argument("--seed", type=int, help="default: the profile's first")
    run.add_argument("--cache", default="", metavar="DIR", help="decoded images (default: $REPORT_CACHE or .cache)")
    run.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")

    parameters = steps.add_parser("parameters", help="write the profile with its overrides, validated, for papermill")
    parameters.set_defaults(do=do_parameters)
    parameters.add_argument("--seeds")
    parameters.add_argument("--extra-seeds", help="those of the runs for budgets and defects; some of the seeds")
    parameters.add_argument("--recipes", metavar="LIST", help=f"of {', '.join(RECIPES)}")
    parameters.add_argument("--budgets", metavar="LIST", help="labelled images a class, such as 10,50,250")
    parameters.add_argument("--defects", metavar="LIST", help=f"of {', '.join(APPROACHES)}")
    parameters.add_argument("--data-name", help="what the report calls the data")
    parameters.add_argument("--output", required=True, type=Path, metavar="FILE")

    search = steps.add_parser("search", help="try the settings behind the recipe tuned; judged on validation images")
    search.set_defaults(do=do_search)
    search.add_argument("--approach", required=True, choices=APPROACHES)
    search.add_argument("--seed", type=int, help="default: the profile's first")

    for step in (run, parameters, search):
        step.add_argument("--profile", metavar="NAME", default=None if step is run else "demo",
                          help=f"a file of report/profiles (default: {'none' if step is run else 'demo'})")  # fmt: skip
        step.add_argument("--data", help="digits, cifar10, or the path of a class-folder tree or archive")
        step.add_argument("--weights", help="imagenet, embedded, none, or the path of a state dict")
        step.add_argument("--image-size", type=int, metavar="PIXELS")
        step.add_argument("--epochs", type=int)
        step.add_argument("--batch-size", type=int)
        step.add_argument("--learning-rate", type=float)
        step.add_argument("--val-fraction", type=float)
        step.add_argument("--per-class", type=int, metavar="N", help="use N labelled images of each class (0: all)")
        step.add_argument("--precision", choices=PRECISIONS)
        step.add_argument("--device", choices=DEVICES)
        step.add_argument("--runs", metavar="DIR", help="the run store (default: $REPORT_RUNS or .runs)")

    prepare = steps.add_parser("prepare", help="fill the image cache and check data and weights against parameters")
    prepare.set_defaults(do=do_prepare)
    prepare.add_argument("parameters", type=Path)

    jobs = steps.add_parser("jobs", help="print the options of `run` for each run of a study, a line each")
    jobs.set_defaults(do=do_jobs)
    jobs.add_argument("parameters", type=Path)

    complete = steps.add_parser("complete", help="say whether the store has every run of a study")
    complete.set_defaults(do=do_complete)
    complete.add_argument("parameters", type=Path)

    verify = steps.add_parser("verify", help="make a recorded run again and say whether it came out the same")
    verify.set_defaults(do=do_verify)
    verify.add_argument("record", help="its folder, or the parameters of a study, of which it takes the first run")
    verify.add_argument("--device", choices=DEVICES, default="auto")
    verify.add_argument("--cache", default="", metavar="DIR", help="decoded images (default: $REPORT_CACHE or .cache)")

    results = steps.add_parser("results", help="write every number of a report as JSON")
    results.set_defaults(do=do_results)
    results.add_argument("parameters", type=Path)
    results.add_argument("--output", required=True, type=Path, metavar="FILE")
    return top


def do_run(options: argparse.Namespace) -> None:
    given = profiles.overrides(vars(options))
    kind, _, name = options.recipe.partition(":")
    chosen = profiles.resolve(options.profile, given)
    # What else the profile plans is not asked for.
    chosen |= {"budgets": name if kind == "budget" else "", "defects": options.approach if kind == "defect" else ""}
    # Any recipe may be run by name; budget:N takes the best of those that the profile names.
    if not options.recipes and (options.profile is None or kind in RECIPES):
        chosen["recipes"] = list(RECIPES)
    if options.seed is not None:
        chosen |= {"seeds": [options.seed], "extra_seeds": ""}
    planned = plan.plan(options.approach, **profiles.study(chosen))
    if options.recipe not in planned:
        raise InputError(f"recipe is {shown(options.recipe)}; of {options.approach} there are {', '.join(planned)}")
    from report_lib import runner  # late, so that --help and a wrong value answer at once

    cache = os.path.abspath(options.cache) if options.cache else ""
    done = runner.run(planned[options.recipe][0], chosen["runs"], cache, chosen["device"])
    if options.json:
        figures = ("selected_epoch", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
        print(json.dumps({"record": str(done.path), **{name: done.info[name] for name in figures}}))
    else:
        print(done.path)


def do_jobs(options: argparse.Namespace) -> None:
    chosen = profiles.study_of(options.parameters)
    for approach in APPROACHES:
        for what, recipes in plan.plan(approach, **profiles.study(chosen)).items():
            for recipe in recipes:
                print(shlex.join(profiles.options(chosen, approach, what, recipe.seed)))


def do_complete(options: argparse.Namespace) -> None:
    from report_lib import records

    chosen = profiles.study_of(options.parameters)
    store = folder(chosen["runs"], "REPORT_RUNS", ".runs")
    planned = [plan.plan(approach, **profiles.study(chosen)) for approach in APPROACHES]
    wanted = [recipe for kinds in planned for recipes in kinds.values() for recipe in recipes]
    lacking = []
    for recipe in wanted:
        try:
            records.requested(store, [recipe])
        except InputError as error:
            lacking.append(str(error))
    if lacking:
        raise InputError(f"{len(lacking)} of {len(wanted)} runs are not there; start make runs again ({lacking[0]})")
    print(f"all {len(wanted)} runs are in {store}")


def do_verify(options: argparse.Namespace) -> int:
    from report_lib.verify import verify

    same, report = verify(
        os.path.abspath(os.path.expanduser(options.record)),
        options.device,
        os.path.abspath(options.cache) if options.cache else "",
    )
    print(report)
    return 0 if same else 1


def do_search(options: argparse.Namespace) -> None:
    chosen = profiles.resolve(options.profile, profiles.overrides(vars(options)))
    fields = profiles.recipe_fields(chosen)
    seed = parse_seeds(chosen["seeds"])[0] if options.seed is None else options.seed
    from report_lib.search import search

    shared = {name: value for name, value in fields.items() if value is not None} | {"seed": seed}
    if options.approach == "full_finetune" and not chosen["mirror"]:
        shared["flip"] = False
    print(search(options.approach, shared, chosen["device"]))


def do_parameters(options: argparse.Namespace) -> None:
    profiles.write(profiles.resolve(options.profile, profiles.overrides(vars(options))), options.output)


def do_prepare(options: argparse.Namespace) -> None:
    chosen = profiles.study_of(options.parameters)
    planned = [plan.plan(approach, **profiles.study(chosen)) for approach in APPROACHES]
    from report_lib import data, model

    # Not the device: with a launcher, training happens on another machine.
    check_writable(folder(chosen["runs"], "REPORT_RUNS", ".runs"), "runs")
    model.load_weights(chosen["weights"])
    images = data.load(chosen["data"], chosen["image_size"])
    for recipe in (recipe for some in planned for recipes in some.values() for recipe in recipes):
        data.check(images, recipe)


def do_results(options: argparse.Namespace) -> None:
    from report_lib import disk
    from report_lib.results import results

    chosen = profiles.study_of(options.parameters)
    store = folder(chosen["runs"], "REPORT_RUNS", ".runs")
    numbers = results(chosen["profile"], plan.read(store, **profiles.study(chosen)), chosen["data_name"])
    disk.write_whole(options.output, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
