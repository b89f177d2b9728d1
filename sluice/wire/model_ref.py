"""Which model a request is for, in no dialect's words."""

from typing import NamedTuple

from sluice.wire.protos.serving_pb2 import ModelSpec


class ModelRef(NamedTuple):
    """A model's name, and at most one of a version number and a version label.

    >>> spec = ModelRef("digits", label="canary").to_proto("encoded")
    >>> spec.name, spec.version_label, spec.signature_name
    ('digits', 'canary', 'encoded')
    >>> ModelRef.from_proto(spec)
    ModelRef(name='digits', version=None, label='canary')
    """

    name: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def from_proto(cls, spec: ModelSpec) -> "ModelRef":
        choice = spec.WhichOneof("version_choice")
        return cls(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def to_proto(self, signature_name: str = "") -> ModelSpec:
        spec = ModelSpec(name=self.name, signature_name=signature_name)
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label
        return spec
