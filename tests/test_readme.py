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
    accuracy = {a: f"{100 * kinds['tuned']['test_accuracy']['mean']:.1f}" for a, kinds in numbers["approaches"].items()}
    assert f"tuned fine-tuning is right on {accuracy['full_finetune']} % of the test images" in said
    assert f"the tuned linear probe on {accuracy['linear_probe']} %" in said
    fewest = numbers["label_budget"][0]
    behind = -100 * fewest["comparison"]["accuracy_difference"]["mean"]
    assert f"with {fewest['labels_per_class']:.0f} labels per class the probe is ahead by {behind:.0f} points" in said
    labels, size = numbers["label_budget"][-1]["labels_per_class"], numbers["recipe"]["image_size"]
    assert f"{labels:.0f} labelled images per class, {size} pixels" in said
    assert f"{numbers['approaches']['linear_probe']['tuned']['test_accuracy']['n']} seeds" in said
    trained_from_these = numbers["weights"]["sha256"] == EMBEDDED_SHA256
    assert ("since replaced by those embedded here" in said) is not trained_from_these


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
