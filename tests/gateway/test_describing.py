"""What the gateway says of itself holds: schemas, and curl lines that work."""

import json
import subprocess

import numpy as np
import pytest
import requests
from PIL import Image

from service.gateway import openapi
from service.gateway.error_responses import STATUS


@pytest.fixture(scope="module")
def described(launch_gateway, modelserver):
    return launch_gateway(modelserver.address, models="affine,pair,dtypes,echo,unbatched,nope").url


MODELS = ["affine", "pair", "dtypes", "echo", "unbatched"]


def test_every_served_model_has_its_paths(described):
    document = requests.get(f"{described}/openapi.json", timeout=30).json()
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": described}]
    for name in MODELS:
        assert f"/v1/models/{name}:predict" in document["paths"]
        assert f"/v2/models/{name}/infer" in document["paths"]
    assert "nope" not in json.dumps(document)


def test_every_error_status_is_described():
    assert {str(status) for status in STATUS.values()} == set(openapi.ERRORS)


def test_schemas_describe_the_shapes(described):
    paths = requests.get(f"{described}/openapi.json", timeout=30).json()["paths"]
    body = paths["/v1/models/echo:predict"]["post"]["requestBody"]["content"]["application/json"]
    default = next(
        option
        for option in body["schema"]["anyOf"]
        if "signature_name" not in option["oneOf"][0]["required"]
    )
    rows = default["oneOf"][0]["properties"]["instances"]
    named, bare = rows["items"]["anyOf"]
    assert named["required"] == ["matrix"]
    assert (bare["minItems"], bare["items"]["minItems"], bare["items"]["maxItems"]) == (2, 3, 3)
    assert bare["items"]["items"] == {"type": "number"}


@pytest.mark.parametrize("model", MODELS)
def test_the_curl_line_of_a_models_page_works(described, model, tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "IMAGE.png")
    page = requests.get(f"{described}/docs/{model}", timeout=30).text
    line = page.split('<pre id="curl">')[1].split("</pre>")[0]
    line = line.replace("&#39;", "'").replace("&#34;", '"')
    answer = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout
    assert "error" not in json.loads(answer), answer


def test_the_pages_ask_no_other_host(described):
    for path in ("/docs", "/docs/affine"):
        page = requests.get(described + path, timeout=30).text
        assert "//" not in page.replace(described, "").replace("http://127", "")


def test_a_page_of_no_model(described):
    reply = requests.get(f"{described}/docs/nope", timeout=30)
    assert reply.status_code == 404
