"""The `sluice` command: what it says of itself, and of a command line that is not right."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from training.recipes import MINUTES, RECIPES
from training.settings import settings_of


def sluice(*arguments, **environment):
    return CliRunner().invoke(main, arguments, env=environment)


def test_the_list_of_commands_says_whole_sentences():
    listing = sluice("--help").output.partition("Commands:\n")[2]
    assert "..." not in listing
    text = " ".join(listing.split())
    for name in main.list_commands(None):
        summary = " ".join(main.get_command(None, name).help.partition("\n\n")[0].split())
        assert f"{name} {summary}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "digits"], "No such command 'trian'; did you mean 'train'?"),
        (["prdict", "digits"], "No such command 'prdict'; did you mean 'predict'?"),
        (["xyz"], "No such command 'xyz'; there are admit, capture, gateway, "),
        (["--hlep"], "No such option '--hlep'. Did you mean '--help'?"),
        (["train", "digits", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["predict", "digits", "x.png", "--topk", "3"], "Did you mean '--top-k'?"),
        (["gateway", "--http-port", "99999"], "99999 is not in the range 1<=x<=65535."),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(arguments, said):
    result = sluice(*arguments)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SLUICE_HTTP_PROT", "1", "there is no such setting; did you mean SLUICE_HTTP_PORT?"),
        ("SLUICE_HTTP_PORT", "99999", "expected a whole number, 1 to 65535, got '99999'"),
        ("SLUICE_MAX_WAIT_S", "nan", "expected a number, 0.001 to 86400, got 'nan'"),
        ("SLUICE_DRAIN_TIMEOUT_S", "inf", "expected a number, 0.1 to 86400, got 'inf'"),
        ("SLUICE_LOG_LEVEL", "verbose", "expected debug or info or warning or error, got "),
        ("SLUICE_PLACES", "-1", "expected a whole number, 1 or more, got '-1'"),
    ],
)
@pytest.mark.parametrize("command", ["up", "gateway"])
def test_a_setting_that_cannot_be_used_is_one_line(command, variable, value, said):
    result = sluice(command, **{variable: value})
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {variable}: {said}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "models", "predict", "modelserver"])
def test_every_command_finds_out_a_variable_that_there_is_not(command):
    result = sluice(command, "x", "y", SLUICE_FASHION_MNIST_DRI="/data")
    assert result.exit_code == 2
    assert "did you mean SLUICE_FASHION_MNIST_DIR?" in result.output


def test_recipes_are_listed_with_data_minutes_and_settings():
    listing = sluice("recipes").output
    for recipe in RECIPES.values():
        assert f"{recipe.name}: {recipe.summary}\n  data: " in listing
    assert "epochs=60 batch_size=32 learning_rate=0.002 shift=0.05" in listing


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_of_a_recipe_is_listed_with_its_default_and_bounds(recipe):
    table = sluice("recipes", recipe).output
    help_text = " ".join(sluice("train", recipe, "--help").output.split())
    assert "..." not in help_text.partition("Settings of")[2]
    for setting in settings_of(RECIPES[recipe]):
        assert re.search(
            rf"^{setting.name} +{re.escape(setting.shown_default)} +{re.escape(setting.allowed)}",
            table,
            re.M,
        )
        assert f"{setting.name}={setting.shown_default} " in help_text
        assert f"[{setting.allowed}]" in help_text


def test_a_recipe_that_there_is_not_is_answered_with_the_nearest():
    assert "known, nearest first: digits, " in sluice("recipes", "digts").output
    assert "Settings of digits" in sluice("train", "--epochs", "3", "digits", "--help").output
    said = sluice("train", "digts", "--help").output.partition("There is no recipe 'digts'")[2]
    assert said.index(" digits ") < said.index(" fashion ")
    assert all(
        recipe.summary.split()[0] in sluice("train", "-h").output for recipe in RECIPES.values()
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "digts"], "there is no recipe 'digts'; known, nearest first: digits, "),
        (["train", "digits", "--set", "epoch=3"], "recipe 'digits' has no setting 'epoch'; known"),
        (["train", "digits", "--set", "epochs=0"], "epochs must be 1 to 100,000, not 0"),
        (["train", "digits", "--set", "model=resnt"], "nearest first: resnet"),
        (["train", "digits", "--name", "../evil"], "a model cannot be named '../evil'"),
        (["publish", "any.keras", "--name", "../evil"], "a model cannot be named '../evil'"),
        (["recipes", "digts"], "there is no recipe 'digts'"),
    ],
)
def test_what_training_cannot_be_asked_for_has_the_status_of_a_wrong_command_line(
    arguments, said, tmp_path
):
    repository = [] if arguments[0] == "recipes" else ["--model-repository", str(tmp_path)]
    result = sluice(*arguments, *repository)
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert said in result.output


def test_what_training_may_be_asked_for_and_cannot_do_has_another(tmp_path):
    result = sluice("train", "digits", "--resume", "--model-repository", str(tmp_path))
    assert result.exit_code == 1, result.output


def test_the_minutes_are_those_of_the_docs():
    page = (Path(__file__).parent.parent / "docs/models.md").read_text()
    rows = re.findall(r"^\| `sluice train (\w+)`.* \| ([\d.]+) \|$", page, re.M)
    assert {name: float(minutes) for name, minutes in rows} == MINUTES
