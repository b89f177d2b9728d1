"""KServe's documents held against KServe's own classes, and Kubernetes' inside them:
`python through_kserve.py FILE ...` prints the kind of each, and fails at a field that they do not
know, or at a value of another type."""

import re
import sys
from pathlib import Path

import kserve.models
import kubernetes.client
import yaml

CLASSES = {
    "InferenceService": "V1beta1InferenceService",
    "ServingRuntime": "V1alpha1ServingRuntime",
}
NATIVE = {"str": str, "int": int, "bool": bool, "float": float, "object": object}


def main(files: list[str]) -> None:
    for document in (each for file in files for each in yaml.safe_load_all(Path(file).read_text())):
        if document["kind"] in CLASSES:
            check(document, CLASSES[document["kind"]], document["kind"])
            print(document["kind"])


def check(value: object, kind: str, path: str) -> None:
    """`kind` is as the generated classes write it: `list[V1Container]`, `dict(str, str)`, `int`."""
    if many := re.fullmatch(r"[lL]ist\[(.*)\]", kind):
        for number, each in enumerate(value):
            check(each, many[1], f"{path}[{number}]")
    elif named := re.fullmatch(r"[dD]ict[(\[]str, (.*)[)\]]", kind):
        for name, each in value.items():
            check(each, named[1], f"{path}.{name}")
    elif kind in NATIVE:
        assert isinstance(value, NATIVE[kind]), f"{path}: {value!r} is no {kind}"
    else:
        described = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind)
        names = {name: field for field, name in described.attribute_map.items()}
        for name, each in value.items():
            assert name in names, f"{path}: {kind} has no {name!r}"
            check(each, described.openapi_types[names[name]], f"{path}.{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
