"""Write official.json: the official definition of every name that our .proto files define.

PYTHONPATH=. python tests/protos/snapshot.py        # where tensorflow-serving-api, tritonclient
                                                    # and grpcio-reflection are installed
"""

import importlib
import json
from pathlib import Path

from google.protobuf import descriptor_pool

OFFICIAL = [
    *(
        f"tensorflow_serving.apis.{name}_pb2"
        for name in (
            "classification",
            "get_model_metadata",
            "get_model_status",
            "inference",
            "input",
            "logging",
            "model",
            "model_management",
            "model_service",
            "predict",
            "prediction_log",
            "prediction_service",
            "regression",
            "status",
        )
    ),
    "tensorflow_serving.config.model_server_config_pb2",
    "tensorflow_serving.config.file_system_storage_path_source_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "grpc_reflection.v1alpha.reflection_pb2",
    "tritonclient.grpc.service_pb2",
]
OURS = [
    f"sluice.wire.protos.{name}_pb2"
    for name in ("error_codes", "inference", "reflection", "serving", "tensorflow")
]


def describe(files):
    """All the messages, enums and services of `files` by full name, as plain data."""
    described = {}
    waiting = [message for file in files for message in file.message_types_by_name.values()]
    for file in files:
        for enum in file.enum_types_by_name.values():
            described[enum.full_name] = {value.name: value.number for value in enum.values}
        for service in file.services_by_name.values():
            described[service.full_name] = {
                method.name: [
                    method.input_type.full_name,
                    method.output_type.full_name,
                    method.client_streaming,
                    method.server_streaming,
                ]
                for method in service.methods
            }
    while waiting:
        message = waiting.pop()
        described[message.full_name] = {field.name: _field(field) for field in message.fields}
        waiting += message.nested_types
        for enum in message.enum_types:
            described[enum.full_name] = {value.name: value.number for value in enum.values}
    return described


def _field(field):
    other = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return [
        field.number,
        field.type,
        bool(field.is_repeated),
        other.full_name if other else "",
        oneof.name if oneof else "",
    ]


def our_files():
    return [importlib.import_module(name).DESCRIPTOR for name in OURS]


def main():
    for name in OFFICIAL:
        importlib.import_module(name)
    pool = descriptor_pool.Default()
    files = {}
    for name in describe(our_files()):
        try:
            file = pool.FindFileContainingSymbol(
                name.replace(".reflection.v1.", ".reflection.v1alpha.")
            )
            files[file.name] = file
        except KeyError:
            print(f"{name} is in no official package")
    text = json.dumps(describe(files.values()), indent=1, sort_keys=True)
    text = text.replace("grpc.reflection.v1alpha", "grpc.reflection.v1")
    official = json.loads(text)
    kept = {name: official[name] for name in sorted(describe(our_files())) if name in official}
    lines = [f" {json.dumps(name)}: {json.dumps(kept[name])}" for name in kept]
    Path(__file__).with_name("official.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
