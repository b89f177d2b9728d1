"""What an explanation costs, and whether it is one: the tables of docs/explain.md.

    python benchmarks/explain.py [--rounds 60] [--limit 6000] [--epochs 3] [--docs]

Each section is a module that gives a title and lines of Markdown.
"""

import argparse
import os
from datetime import date

import explaining_cost
import explaining_worth
from measuring import write_docs

PAGE = "explain.md"
SECTIONS = (explaining_cost.section, explaining_worth.section)


def main() -> None:
    options = _options()
    machine = f"{date.today()}, {os.cpu_count()} CPUs of a shared virtual machine, no GPU:"
    text = "\n\n".join([machine, *("\n".join(section(options)) for section in SECTIONS)])
    print(text)
    if options.docs:
        write_docs(PAGE, "make bench-explain", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="of predict and explain, in turn")
    parser.add_argument("--limit", type=int, default=6000, help="garments that are trained on")
    parser.add_argument("--epochs", type=int, default=3, help="on the garments")
    parser.add_argument("--docs", action="store_true", help=f"write them into {PAGE}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
