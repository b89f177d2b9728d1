"""docs/notebook.ipynb, run cell by cell beside a `sluice up`."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/notebook.ipynb"


def test_it_is_a_notebook_that_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []


@pytest.fixture
def drawn(published, up, tmp_path_factory):
    """By cell, what it shows: its HTML, or else its text."""
    directory = tmp_path_factory.mktemp("checkout")
    repository = directory / "model_repository"
    shutil.copytree(published, repository / "digits")
    notebook = nbformat.read(NOTEBOOK, 4)
    url = up(repository).url
    for cell in notebook.cells:
        cell.source = cell.source.replace("http://localhost:8080", url)
    (directory / "docs").mkdir()
    resources = {"metadata": {"path": str(directory / "docs")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return {
        cell.id: "".join(map(shown, cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def shown(output):
    if output.output_type == "stream":
        return output.text
    return output.data.get("text/html") or output.data["text/plain"]


@pytest.mark.slow
def test_its_cells_show_labels_pictures_heat_and_a_mask(drawn):
    assert drawn["connect"] == "['digits']"
    assert "<th" in drawn["ask"] and ">3</th>" in drawn["ask"] and 'alt="image"' in drawn["ask"]
    assert "['3']" in drawn["use"] and "LABEL" in drawn["use"]
    assert drawn["batch"].count('alt="image"') == 8
    assert "and 2 more rows" in drawn["batch"]
    assert 'alt="where the model looked"' in drawn["explain"]
    assert 'alt="the mask"' in drawn["mask"]
