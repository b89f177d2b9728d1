"""`sluice predict`, against a real gateway and a real model server."""

import json

import numpy as np
import pytest
import requests
from click.testing import CliRunner

from sluice.client.command import predict


@pytest.fixture(params=["http", "grpc"])
def ask(request, urls):
    """`ask(*arguments)` -> what the command prints; `ask.fails(*arguments)` -> its one line."""

    def run(*arguments, exit_code=0):
        result = CliRunner().invoke(predict, [f"--url={urls[request.param]}", *map(str, arguments)])
        assert result.exit_code == exit_code, result.output
        return result.output

    def fails(*arguments):
        line = run(*arguments, exit_code=1)
        assert line.startswith("Error: ")
        assert line.count("\n") == 1
        return line

    run.fails = fails
    return run


def test_a_table_of_labels(ask, samples):
    header, three, seven = ask("digits", samples[3], samples[7]).splitlines()
    assert header.split() == ["FILE", "HEAD", "LABEL", "SCORE"]
    assert three.split()[:3] == [str(samples[3]), "label", "3"]
    assert seven.split()[:3] == [str(samples[7]), "label", "7"]
    assert len(ask("digits", samples[3], samples[7], "--top-k", 3).splitlines()) == 7


def test_json_has_every_output_of_each_file(ask, samples):
    document = json.loads(ask("digits", samples[3], samples[7], "--json", "--top-k", 2))
    assert (document["model"], document["version"], document["outputs"]) == ("digits", 1, {})
    three, seven = document["rows"]
    assert three["file"] == str(samples[3])
    assert three["labels"]["label"][0]["label"] == "3"
    assert len(seven["labels"]["label"]) == 2
    assert len(seven["outputs"]["label"]) == 10
    assert seven["outputs"]["label_classes"][0] == "7"


def test_arrays_and_their_values(ask, tmp_path):
    for name, rows in {"a": [[1, 2]], "b": [[3, 4], [5, 6]]}.items():
        np.save(tmp_path / f"{name}.npy", np.array(rows, "f8"))
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    assert [line.split() for line in ask("unbatched", *files).splitlines()] == [
        ["OUTPUT", "DTYPE", "SHAPE", "VALUES"],
        ["mean", "float32", "[]", "3.5"],
        ["rows", "float32", "[3,2]", "2", "4", "6", "8", "10", "12"],
    ]
    document = json.loads(ask("unbatched", *files, "--json"))
    assert document["outputs"] == {"mean": 3.5}
    assert document["rows"][2] == {
        "file": f"{files[1]}[1]",
        "labels": {},
        "outputs": {"rows": [10, 12]},
    }


def test_several_inputs_by_their_names(ask, tmp_path):
    np.save(tmp_path / "images.npy", np.array([np.eye(2), np.ones((2, 2))])[..., None])
    image, meta = f"--input=image=@{tmp_path}/images.npy", "--input=meta=[1, 2, 3]"
    rows = json.loads(ask("pair", image, meta, "--input=meta=[4, 5, 6]", "--json"))["rows"]
    assert [row["file"] for row in rows] == [f"{tmp_path}/images.npy[{row}]" for row in (0, 1)]
    assert [row["outputs"]["score"] for row in rows] == [[8], [19]]
    rows = json.loads(ask("pair", meta, "--input=image=[[[1], [2]], [[3], [4]]]", "--json"))["rows"]
    assert [(row["file"], row["outputs"]["score"]) for row in rows] == [("[1, 2, 3]", [16])]


def test_an_input_by_its_name_may_be_a_picture_or_text(ask, samples):
    three, seven = f"--input=image=@{samples[3]}", f"--input=image=@{samples[7]}"
    named = ask("digits", three, seven)
    assert named == ask("digits", samples[3], samples[7])
    given = ["i32=1", "i64=2", "u8=3", "f64=3", "flag=true"]
    for text, said in (("3 birds", "3 BIRDS"), ('"3"', "3")):
        inputs = [f"--input={each}" for each in [*given, f"text={text}"]]
        [row] = json.loads(ask("dtypes", *inputs, "--json"))["rows"]
        assert (row["outputs"]["text"], row["outputs"]["flag"]) == (said, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give FILEs, for a model's only input, or --input for each by name"),
        (["x.png", "--input=image=@x.png"], "give FILEs, for a model's only input, or --input"),
        (["--input=image"], "expected NAME=VALUE or NAME=@FILE, got 'image'"),
    ],
)
def test_inputs_that_are_not_to_be_understood(arguments, said):
    result = CliRunner().invoke(predict, ["pair", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_an_input_that_the_model_has_not_is_named(ask, samples):
    assert "imgae" in ask.fails("digits", f"--input=imgae=@{samples[3]}")
    mixed = ask.fails("digits", f"--input=image=@{samples[3]}", "--input=image=3")
    assert "3-0.png is a file and other rows are none; give one kind" in mixed


def test_a_version_a_label_a_signature(ask, tmp_path):
    np.save(tmp_path / "one.npy", np.array([1.0]))
    assert " 2.5\n" in ask("affine", tmp_path / "one.npy", "--version", 1)
    assert " 3.5\n" in ask("affine", tmp_path / "one.npy", "--label", "canary")
    both = ask.fails("affine", tmp_path / "one.npy", "--label=canary", "--version=1")
    assert "version=1 and label='canary' are both given" in both
    assert 'no signature "other"' in ask.fails("affine", tmp_path / "one.npy", "--signature=other")


def test_a_file_that_cannot_be_used_is_named(ask, samples, tmp_path):
    assert "none.png: No such file" in ask.fails("digits", samples[3], tmp_path / "none.png")
    assert f"{tmp_path}: Is a directory" in ask.fails("digits", tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt: expected an image" in ask.fails("digits", tmp_path / "notes.txt")
    (tmp_path / "scan.tif").write_bytes(b"II*\0")
    assert "got a TIFF file (save it as PNG or JPEG)" in ask.fails("digits", tmp_path / "scan.tif")
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY")
    assert "short.npy: " in ask.fails("digits", tmp_path / "short.npy")
    np.save(tmp_path / "number.npy", 1.0)
    assert "number.npy: expected an array of rows" in ask.fails("digits", tmp_path / "number.npy")
    row, table = tmp_path / "row.npy", tmp_path / "table.npy"
    np.save(row, [1.0])
    np.save(table, [[1.0]])
    assert "row.npy is an array and other files are images" in ask.fails("digits", row, samples[3])
    assert "cannot be joined to one batch" in ask.fails("digits", row, table)


def test_what_the_server_refuses_is_one_line(ask, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    assert "image" in ask.fails("digits", tmp_path / "cut.png")
    assert "nobody" in ask.fails("nobody", tmp_path / "cut.png")


def test_a_model_that_is_not_there_is_answered_with_those_that_are(urls, samples):
    for way in ("http", "http-plain"):
        result = CliRunner().invoke(predict, ["digit", str(samples[3]), "--url", urls[way]])
        assert result.exit_code == 1
        assert "no model 'digit' at the server; there are, nearest first: digits, " in result.output


def test_a_picture_for_a_signature_that_takes_pixels_is_decoded_as_curls_is(urls, samples):
    command = ["digits", str(samples[3]), "--signature", "serving_default", "--json"]
    result = CliRunner().invoke(predict, [*command, "--url", urls["http"]])
    assert result.exit_code == 0, result.output
    by_curl = requests.post(
        f"{urls['http']}/v1/models/digits:predict?signature_name=serving_default",
        data=samples[3].read_bytes(),
        timeout=30,
    ).json()
    assert json.loads(result.output)["rows"][0]["outputs"]["label"] == pytest.approx(
        by_curl["predictions"][0]
    )
    over_grpc = CliRunner().invoke(predict, [*command, "--url", urls["grpc"]])
    assert "ask the gateway at http://" in over_grpc.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://127.0.0.1:1"])
def test_no_server(url, samples):
    for arguments, environment in ((["--url", url], {}), ([], {"SLUICE_URL": url})):
        command = ["digits", str(samples[3]), *arguments]
        result = CliRunner().invoke(predict, command, env=environment)
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert f"is a server at {url}? Start one with `sluice up`" in result.output


def test_what_is_no_url(samples):
    result = CliRunner().invoke(predict, ["digits", str(samples[3]), "--url", "localhost:8080"])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "expected a server's URL" in result.output
