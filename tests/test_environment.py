"""environment.yml, pyproject.toml and requirements.lock say the same."""

import importlib.metadata
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from report_lib.files import PROJECT

CARD = "torch torchvision numpy matplotlib pandas papermill nbconvert jupyterlab pytest nbval".split()


def table():
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def wanted():
    return [Requirement(line) for line in table()["dependencies"]]


def locked():
    """Name -> the requirements with which the lock pins it, by Python version or platform."""
    found = {}
    for line in (PROJECT / "requirements.lock").read_text().splitlines():
        if line and not line.lstrip().startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def test_the_lock_pins_what_the_project_asks_for():
    pins = locked()
    for requirement in wanted():
        for pin in pins[canonicalize_name(requirement.name)]:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), f"{pin} against {requirement}"
    assert set(CARD) <= {requirement.name for requirement in wanted()}


def test_every_locked_package_is_there_for_a_reason():
    """The lock says by which each is asked for; what it says of the project itself is what pyproject.toml says."""
    direct = {canonicalize_name(requirement.name) for requirement in wanted()}
    text = (PROJECT / "requirements.lock").read_text()
    asked = set()
    for name, via in re.findall(r"^(\S+?)==.*\n((?:    # .*\n)+)", text, re.M):
        if "(pyproject.toml)" in via:
            asked.add(canonicalize_name(name))
    assert asked == direct


def test_conda_takes_every_package_from_the_lock():
    given = yaml.safe_load((PROJECT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in given["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    from_conda = [entry for entry in given["dependencies"] if isinstance(entry, str)]
    assert {re.split("[=<>]", entry)[0] for entry in from_conda} == {"python", "pip", "make", "git"}
    (python,) = [entry.split("=")[1] for entry in from_conda if entry.startswith("python=")]
    assert SpecifierSet(table()["requires-python"]).contains(f"{python}.0")
    there = {"python_full_version": f"{python}.0", "python_version": python}
    for requirement in wanted():
        pins = locked()[canonicalize_name(requirement.name)]
        assert any(pin.marker is None or pin.marker.evaluate(there) for pin in pins), f"{requirement.name} on {python}"


def test_each_dependency_outside_the_card_has_its_reason():
    text = (PROJECT / "pyproject.toml").read_text()
    for requirement in wanted():
        if requirement.name not in CARD:
            assert re.search(rf'"{re.escape(requirement.name)}[^"]*",  # \w+', text), requirement.name


def test_what_is_installed_is_what_is_locked():
    if sys.prefix == sys.base_prefix:
        pytest.skip("no environment of its own")
    for name, pins in locked().items():
        for pin in pins:
            if pin.marker is None or pin.marker.evaluate():
                try:
                    version = importlib.metadata.version(name)
                except importlib.metadata.PackageNotFoundError:
                    continue  # another environment, which has other packages as well as it pleases
                assert pin.specifier.contains(version.split("+")[0]), f"{name} {version} is installed, {pin} locked"
