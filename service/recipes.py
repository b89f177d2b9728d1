"""`sluice recipes`, and what `sluice train RECIPE --help` says of the recipe.

`training` is imported where it is asked, as it is no part of the commands that only serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.refusals import training_refusals
from sluice.wire.nearest import nearest_first

if TYPE_CHECKING:
    from training import Recipe
    from training.settings import Setting

_DATA = {
    "digits": "scikit-learn's digits",
    "fashion": "Fashion-MNIST, or --data",
}
_HOW = "--set KEY=VALUE changes a setting; `sluice recipes RECIPE` lists all of a recipe's"


@click.command()
@click.argument("recipe", required=False)
def recipes(recipe: str | None) -> None:
    """List the recipes that `sluice train` knows: what each shows, its data, minutes and settings.

    With RECIPE, all of its settings, with their defaults and bounds.
    """
    with training_refusals():
        click.echo(_described(recipe) if recipe else _overview())


class TrainCommand(click.Command):
    """`sluice train`, whose help knows the recipe that it is asked with."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        # --help is answered before any argument is read.
        context.meta[__name__] = list(args)
        return super().parse_args(context, args)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(context, formatter)
        from training import RECIPES
        from training.settings import settings_of

        given = context.meta.get(__name__, [])
        first = given[0] if given and not given[0].startswith("-") else None
        asked = next((each for each in given if each in RECIPES), first)
        if asked in RECIPES:
            with formatter.section(f"Settings of {asked} (--set KEY=VALUE)"):
                formatter.write_dl(
                    [
                        (f"{each.name}={each.shown_default}", _meaning(each))
                        for each in settings_of(RECIPES[asked])
                    ]
                )
            return
        names = nearest_first(asked, RECIPES) if asked else list(RECIPES)
        title = f"There is no recipe {asked!r}; nearest first" if asked else "Recipes"
        with formatter.section(title):
            formatter.write_dl([(name, RECIPES[name].summary) for name in names])
        formatter.write_paragraph()
        formatter.write_text("`sluice train RECIPE --help` lists a recipe's settings.")


def _overview() -> str:
    from training import RECIPES

    blocks = ["\n".join(_block(recipe)) for recipe in RECIPES.values()]
    return "\n\n".join([*blocks, _HOW])


def _block(recipe: Recipe) -> list[str]:
    """A recipe, and the settings that are its own or that it sets its own way."""
    from training import Recipe
    from training.settings import settings_of

    common = {each.name: each.default for each in settings_of(_plain())}
    own = [
        f"{each.name}={each.shown_default}"
        for each in settings_of(recipe)
        if each.name != "model" and common.get(each.name, Recipe) != each.default
    ]
    return [
        f"{recipe.name}: {recipe.summary}",
        f"  data: {_DATA.get(recipe.source, recipe.source)}; minutes: {_minutes(recipe)}",
        f"  {' '.join(own)}",
    ]


def _plain() -> Recipe:
    from training import Recipe

    return Recipe("", "", "")


def _described(name: str) -> str:
    from training.settings import configure, settings_of

    recipe = configure(name, {})
    rows = [("SETTING", "DEFAULT", "ALLOWED", "MEANING")]
    rows += [
        (each.name, each.shown_default, each.allowed, each.meaning) for each in settings_of(recipe)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*_block(recipe)[:2], "", *table])


def _minutes(recipe: Recipe) -> str:
    from training.recipes import MINUTES

    if recipe.name in MINUTES:
        return f"{MINUTES[recipe.name]:g} on one core"
    return "not measured" + (", meant for a GPU" if recipe.summary.endswith("for a GPU") else "")


def _meaning(setting: Setting) -> str:
    return f"{setting.meaning} [{setting.allowed}]" if setting.meaning else f"[{setting.allowed}]"
