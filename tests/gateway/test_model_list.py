import asyncio

import pytest

from service.gateway.model_list import ModelList
from service.gateway.predictions import Predictions
from service.gateway.readiness import readiness
from service.gateway.settings import Settings


def config(*names):
    models = " ".join(f'config {{ name: "{name}" base_path: "/{name}" }}' for name in names)
    return f"model_config_list {{ {models} }}"


def test_names_are_joined_from_both_places(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(config("b", "c"))
    models = ModelList(Settings(models=" a, b,,a ", model_config_file=str(file)))
    assert models.names() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("model_config_list {"),
        lambda file: file.write_bytes(b"\xff\xfe"),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["gone", "cut off", "no text", "a directory"],
)
def test_a_file_that_cannot_be_read_leaves_the_names_as_they_were(tmp_path, spoil, caplog):
    file = tmp_path / "models.config"
    file.write_text(config("b", "c"))
    models = ModelList(Settings(models="a", model_config_file=str(file)))
    models.names()
    spoil(file)
    assert [models.names() for _ in range(3)] == [["a", "b", "c"]] * 3
    assert models.problem == ""
    [record] = caplog.records  # said once
    assert f"SLUICE_MODEL_CONFIG_FILE: {file} cannot be read" in record.message
    assert record.message.endswith("; its models stay as they were: b, c")


def test_a_gateway_whose_list_never_could_be_read_is_not_ready_and_says_why(tmp_path):
    file = tmp_path / "models.config"

    async def asked():
        predictions = Predictions(Settings(model_server="127.0.0.1:1", model_config_file=str(file)))
        return await readiness(predictions)

    state = asyncio.run(asked())
    assert not state.ready
    assert state.reason == (
        f"SLUICE_MODEL_CONFIG_FILE: {file} cannot be read (No such file or directory)"
    )
