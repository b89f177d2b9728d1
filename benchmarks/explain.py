"""What an explanation costs, and whether it is one: the tables of docs/explain.md.

    python benchmarks/explain.py [--only cost] [--rounds 60] [--limit 6000] [--epochs 3] [--docs]

Each section is a module that gives lines of Markdown, and has a place of its own in the page.
"""

import argparse
from datetime import UTC, datetime

import explaining_cost
import explaining_worth
from measuring import write_docs
from report import machine

PAGE = "explain.md"
SECTIONS = {"cost": explaining_cost.section, "worth": explaining_worth.section}


def main() -> None:
    options = _options()
    for name in options.only or SECTIONS:
        lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.", "", *SECTIONS[name](options)]
        print("\n".join(lines))
        if options.docs:
            write_docs(PAGE, f"benchmarks/explain.py {name}", "\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be given again")
    parser.add_argument("--rounds", type=int, default=60, help="of predict and explain, in turn")
    parser.add_argument("--limit", type=int, default=6000, help="garments that are trained on")
    parser.add_argument("--epochs", type=int, default=3, help="on the garments")
    parser.add_argument("--docs", action="store_true", help=f"write them into {PAGE}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
