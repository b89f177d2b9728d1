"""docs/training.md, docs/contract.md and the card in docs/graphs.md: they name what there is."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from training.recipes import RECIPES, Recipe

DOCS = Path(__file__).parents[2] / "docs"
ABOUT_THE_RECIPE = {"name", "summary", "model", "source", "task"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named(name):
    assert f"`{name}`" in (DOCS / "training.md").read_text()


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda field: field.name)
def test_every_setting_is_named(field):
    assert field.name in ABOUT_THE_RECIPE or f"`{field.name}`" in (DOCS / "training.md").read_text()


def test_the_contract_names_everything_in_a_version(version):
    contract = (DOCS / "contract.md").read_text()
    for entry in version.iterdir():
        shown = f"`{entry.name}/" if entry.is_dir() else f"`{entry.name}`"
        assert shown in contract or entry.name == "assets", entry.name


def test_the_contract_names_every_key_of_the_metrics(version):
    contract = (DOCS / "contract.md").read_text()
    for key in json.loads((version / "metrics.json").read_text()):
        assert f"`{key}`" in contract, key


def test_the_card_that_is_shown_has_the_parts_of_a_card(version):
    [shown] = re.findall("^```markdown\n(.+?)^```$", (DOCS / "graphs.md").read_text(), re.M | re.S)
    made = (version / "model-card.md").read_text()
    assert re.findall("^## .+", shown, re.M) == re.findall("^## .+", made, re.M)
