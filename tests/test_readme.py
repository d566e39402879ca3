"""What README and guide say is so."""

import json
import re

from report_lib.config import PARAMETERS, parameters
from report_lib.files import PROJECT
from report_lib.models.weights import EMBEDDED_SHA256

README = (PROJECT / "README.md").read_text()
GUIDE = PROJECT / "report" / "guide"


def test_the_first_screen_says_what_the_committed_results_say():
    numbers = json.loads((PROJECT / "report" / "cifar10" / "results.json").read_text())
    said = " ".join(README[: README.index("## Two commands")].split())
    probe, tuned = (numbers["approaches"][a]["tuned"]["test_accuracy"] for a in ("linear_probe", "full_finetune"))
    right = f"tuned fine-tuning is right on {100 * tuned['mean']:.1f} % of the test images ({tuned['n']} seeds)"
    assert f"{right} and the tuned linear probe on {100 * probe['mean']:.1f} % ({probe['n']} seeds)" in said
    pair = "full_finetune minus linear_probe"
    ratio = numbers["comparisons"]["tuned"][pair]["train_seconds_ratio"]["mean"]
    assert f"for {ratio:.1f} times the training time" in said
    assert (
        not numbers["comparisons"]["corrected"][pair]["accuracy"]["clear"]
        and "With plain settings neither is shown to be ahead" in said
    )
    cost = numbers["approaches"]["linear_probe"]["tuned"]["cost"]
    (views,) = (rung["change"] for rung in numbers["ladder"]["linear_probe"] if rung["rung"] == "augmentation")
    assert "most of the probe's goes into augmented views, which bring it no clear gain" in said and not views["clear"]
    assert cost["features_seconds"] > 0.5 * cost["train_seconds"]
    level = [b["labels_per_class"] for b in numbers["label_budgets"] if not b["comparisons"][pair]["accuracy"]["clear"]]
    assert f"with {' or '.join(f'{labels:.0f}' for labels in level)} labels per class" in said
    most = numbers["label_budgets"][-1]
    probe, tuned = (most["approaches"][approach] for approach in ("linear_probe", "full_finetune"))
    gives = f"{100 * tuned['mean']:.1f} % and {100 * probe['mean']:.1f} %"
    assert (
        probe["n"] == tuned["n"] == 1
        and f"With {most['labels_per_class']:,.0f}, one seed of each gives {gives}" in said
    )
    assert f"{numbers['config']['per_class']} labelled images per class" in said
    assert f"{numbers['config']['image_size']} pixels" in said
    assert numbers["weights"]["sha256"] == EMBEDDED_SHA256 and "the small ones embedded here" in said


def test_every_link_leads_somewhere():
    for path in (PROJECT / "README.md", *GUIDE.glob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_the_readme_is_short_and_every_page_of_the_guide_is_linked():
    assert len(README.splitlines()) <= 120
    pages = {path.name for path in GUIDE.glob("*.md")}
    assert pages == {link.rsplit("/", 1)[-1] for link in re.findall(r"report/guide/[\w-]+\.md", README)}


def test_the_guide_lists_every_parameter():
    assert parameters.markdown() in (GUIDE / "parameters.md").read_text()
    assert all(f"`{name}`" in parameters.markdown() for name in PARAMETERS)


def test_the_guides_table_shows_defaults_that_are_zero_or_false():
    table = parameters.markdown()
    assert "| `PER_CLASS` | `0` |" in table and "| `FLIP` | `false` |" in table
