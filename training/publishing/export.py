"""A model as a SavedModel that was tried: folded where that changes no answer."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from sluice.wire.contract import GPU_TAG, SERVING_TAG
from sluice.wire.saved_model import read_signatures
from training.data.dataset import Arrays
from training.data.heads import Head
from training.errors import WrongAnswers
from training.explaining.explainer import Explainer, LookedAt, explainer_of, looked_at
from training.inference import answering
from training.novelty.fitting import Novelty
from training.optimising.folding import Folded, fold
from training.optimising.lowering import lowered_layers
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import batching, checks, half_precision, saved_model, warmup
from training.publishing.half_precision import HalfPrecision
from training.publishing.signatures import ImageShapes, image_inputs
from training.publishing.trials import Trials, trials

_NOTHING_LOWERED = "no layer with weights but those that tell the scores would compute in it"
_First = tuple[list[Folded], Trials, Explainer | None]


@dataclass(frozen=True)
class Export:
    """What is published of a model. rows: held-out samples, [N, ...] by input name, on which every
    signature must answer as Keras does. images, explain_layer: as `SignatureGraphs` takes them.
    half: what is asked of more graphs; None: there are to be none. batch_encoded: as
    `SignatureGraphs` takes it, where the model can.

    >>> Export(keras.Sequential(), {}, {}).explain_layer
    ''
    """

    model: keras.Model
    heads: Mapping[str, Head]
    rows: Arrays
    images: ImageShapes | None = None
    explain_layer: str = ""
    novelty: Novelty | None = None
    half: HalfPrecision | None = None
    batch_encoded: int = 0

    def write(self, staging: Path, say: Callable[[str], None]) -> "Exported":
        """The SavedModel in `staging`. say: told in a line where it is not folded after all, joins
        no calls, or lacks a graph that was asked for.

        Raises WrongAnswers where it does not answer as Keras does.
        """
        if self.batch_encoded and (why := batching.why_not(self.model, self._images(), self.rows)):
            say(f"`encoded` joins no calls: {why}")
            return replace(self, batch_encoded=0).write(staging, say)
        folded, asked, explainer = self._write_first(staging, say)
        graphs: dict[str, dict[str, Any]] = {SERVING_TAG: {"folded": len(folded)}}
        if self.half:
            graphs = self._add_others(staging, folded, asked, self.half)
            for tags, facts in graphs.items():
                if "absent" in facts:
                    say(f"No graph {tags}: {facts['absent']}")
        if self.batch_encoded:
            for facts in graphs.values():
                facts |= {} if "absent" in facts else {"batch_encoded": self.batch_encoded}
        signatures = read_signatures(staging)
        return Exported(signatures, asked, looked_at(explainer), graphs)

    def _add_others(
        self, staging: Path, folded: list[Folded], asked: Trials, wanted: HalfPrecision
    ) -> dict[str, dict[str, Any]]:
        lowered = lowered_layers(self.model)
        if not lowered:
            absent = {half_precision.key(tag): {"absent": _NOTHING_LOWERED} for tag in wanted.tags}
            return {SERVING_TAG: {"folded": len(folded)}, **absent}

        def write(directory: Path, precision: str, weights: str, constants: bool) -> None:
            rewriting = Rewriting(self.model, folded, lowered, precision, constants=constants)
            self._write_graph(directory, rewriting, weights)

        found = half_precision.add(staging, write, self.heads, asked, wanted)
        return {
            tags: facts if "absent" in facts else {"folded": len(folded)} | facts
            for tags, facts in found.items()
        }

    def _write_first(self, staging: Path, say: Callable[[str], None]) -> "_First":
        """Folded, where it then answers as Keras does."""
        folded = [fold(pair) for pair in find_pairs(self.model, _names(self.explain_layer))]
        if folded:
            try:
                return self._tried(staging, folded)
            except WrongAnswers as error:
                say(f"Its normalisations stay as they are; folded, it is {error}")
                _empty(staging)
        return self._tried(staging, [])

    def _tried(self, staging: Path, folded: list[Folded]) -> "_First":
        explainer = self._write_graph(staging, Rewriting(self.model, folded))
        # What Keras looks at, not what was folded.
        of_keras = self._explainer() if folded else explainer
        asked = trials(
            self.model,
            self.rows,
            self.heads,
            read_signatures(staging),
            self.images,
            of_keras,
            self.novelty,
        )
        checks.check_parity(staging, asked, folded=bool(folded))
        return folded, asked, explainer

    def _write_graph(
        self, directory: Path, rewriting: Rewriting, weights: str = "weights"
    ) -> Explainer | None:
        return saved_model.write(
            self.model,
            self.heads,
            directory,
            self.images,
            self.explain_layer,
            self.novelty.spread if self.novelty else None,
            rewriting,
            weights,
            self.batch_encoded,
        ).explainer

    def _explainer(self) -> Explainer | None:
        return explainer_of(self.model, self.heads, self._images(), self.explain_layer)

    def _images(self) -> ImageShapes:
        return image_inputs(answering(self.model).inputs) if self.images is None else self.images


@dataclass(frozen=True)
class Exported:
    """signatures: SignatureDefs by name. asked: what they were tried with. explained: the layers
    that `explain` looks at. graphs: what metrics.json says of each, by its tags.

    >>> Exported({}, {}, {}, {"serve": {"folded": 2}}).graphs
    {'serve': {'folded': 2}}
    """

    signatures: Mapping[str, Any]
    asked: Trials
    explained: LookedAt
    graphs: Mapping[str, Mapping[str, Any]]

    @property
    def more_rows(self) -> Sequence[int]:
        """What it is warmed up with besides single rows: a GPU chooses kernels for each size."""
        gpu = self.graphs.get(half_precision.key(GPU_TAG), {"absent": "never asked for"})
        return () if "absent" in gpu else warmup.GPU_ROWS


def _names(explain_layer: str) -> list[str]:
    return [name.strip() for name in explain_layer.split(",")]


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
