"""The model card that docs/graphs.md shows: a small recipe's, published with every graph.

    python benchmarks/card.py [--docs]

It trains for some seconds, prints the card as it was published, but for the pictures and the table
of the recipe's settings, and with --docs puts it into the page.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from measuring import read_docs, write_docs
from report import machine

import training

PAGE, BLOCK = "graphs.md", "benchmarks/card.py"
RECIPE = "digits"
# Pictures large enough that memory and speed say something.
SETTINGS = {"image_size": 32, "epochs": 8, "optimize": "bf16,gpu"}
_LEFT_OUT = re.compile(r"^(!\[|\| setting \|).*?\n\n", re.S | re.M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help=f"write docs/{PAGE}")
    options = parser.parse_args()
    if options.docs:
        read_docs(PAGE, BLOCK)  # that there is no place for it is said before the training
    text = f"On {machine()}:\n\n```markdown\n{_card()}```"
    print(text)
    if options.docs:
        write_docs(PAGE, BLOCK, text)


def _card() -> str:
    with tempfile.TemporaryDirectory() as repository:
        version = training.train(RECIPE, model_repository=Path(repository), settings=SETTINGS)
        return shown((version / "model-card.md").read_text("utf-8"))


def shown(card: str) -> str:
    """Of the card, what the page shows."""
    return _LEFT_OUT.sub("", card)


if __name__ == "__main__":
    main()
