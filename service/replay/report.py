"""What has changed: text for a terminal, and a page with the worst cases and their pictures."""

import math
from collections.abc import Iterator
from html import escape

from service.replay.changes import Kind, Reply, Tolerance
from service.replay.sides import Place, specs_of
from service.replay.summary import Case, Interval, Summary
from sluice.client import Prediction
from sluice.client.tables import table
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.prediction_logs import PREDICT_LOG
from sluice.wire.tensors import Array, decode_tensor

_MEANINGS = {
    Kind.ERROR: "an error where there was an answer",
    Kind.NAN: "no number where there was one",
    Kind.SHAPE: "other outputs, or of another shape or dtype",
    Kind.CLASS: "another best class",
    Kind.MASK: "masks that overlap by less than {0.overlap:g}",
    Kind.VALUE: "a value off by more than {0.score:g} of the largest",
    Kind.SCORE: "a score off by more than {0.score:g}",
    Kind.ANSWER: "an answer where there was an error",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{color-scheme: light dark}}
body {{font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  overflow-wrap: break-word}}
table {{border-collapse: collapse}}
.numbers td, .numbers th {{padding: 2px 14px 2px 0; text-align: left}}
article {{border-top: 1px solid rgba(128, 128, 128, .4); padding: .5rem 0}}
.sides {{display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr))}}
.sides > div, .counts {{min-width: 0; overflow-x: auto}}
</style></head><body><main>
<h1>{title}</h1>
{body}
</main></body></html>
"""


def as_text(summary: Summary) -> str:
    """The counts, and the times, as they are printed.

    >>> print(as_text(Summary(requests=400, changed=1, by_kind={Kind.CLASS: 1})))
    CHANGE  REQUESTS  SHARE  BETWEEN
    class   1         0.25%  0.04% and 1.40%
    any     1         0.25%  0.04% and 1.40%
    """
    return "\n".join(
        filter(
            None,
            [table(["change", "requests", "share", "between"], _counts(summary)), _times(summary)],
        )
    )


def as_page(
    summary: Summary, before: Place, after: Place, tolerance: Tolerance, of_what: str
) -> str:
    """A page that stands alone: nothing in it runs, or is asked of anybody."""
    rows = "".join(
        f'<tr><th scope="row">{escape(kind)}</th>'
        f"<td>{number}</td><td>{share}</td><td>{between}</td></tr>"
        for kind, number, share, between in _counts(summary)
    )
    columns = ("change", "requests", "share", "95 of 100 times between")
    head = f"<tr>{''.join(f'<th scope=col>{each}</th>' for each in columns)}</tr>"
    parts = [
        f"<p>{summary.requests:,} requests of {escape(of_what)}, asked of "
        f"<b>{escape(str(before))}</b> and of <b>{escape(str(after))}</b>. "
        f"{summary.changed:,} are answered otherwise.</p>",
        *_left(summary),
        '<div class="counts" role="group" tabindex="0" aria-label="changes">'
        f'<table class="numbers">{head}{rows}</table></div>',
        f"<p>{escape(_times(summary))}</p>",
        *(_section(kind, summary, tolerance) for kind in Kind if kind in summary.by_kind),
    ]
    return _PAGE.format(title="What another version answers", body="\n".join(parts))


def _left(summary: Summary) -> Iterator[str]:
    if summary.left:
        yield f"<p>{summary.left:,} more were not compared: {escape(summary.why_left)}</p>"


def _counts(summary: Summary) -> Iterator[list[str]]:
    for kind in Kind:
        if kind in summary.by_kind:
            yield [kind.value, str(summary.by_kind[kind]), *_percents(summary.share(kind))]
    yield ["any", str(summary.changed), *_percents(summary.share())]


def _percents(share: Interval) -> list[str]:
    return [f"{share.estimate:.2%}", f"{share.low:.2%} and {share.high:.2%}"]


def _times(summary: Summary) -> str:
    slower = summary.slowdown()
    if math.isnan(slower.estimate):
        return ""
    told = [
        f"p{percent} {before:.2f} ms, then {after:.2f} ms"
        for percent in (50, 99)
        for before, after in [summary.milliseconds(percent)]
    ]
    return (
        f"An answer took {'; '.join(told)}; the median request {slower.estimate:.2f} times as long "
        f"({slower.low:.2f} to {slower.high:.2f})."
    )


def _section(kind: Kind, summary: Summary, tolerance: Tolerance) -> str:
    cases = summary.worst(kind)
    more = summary.by_kind[kind] - len(cases)
    return (
        f"<section><h2>{escape(_MEANINGS[kind].format(tolerance))}</h2>"
        f"{''.join(map(_case, cases))}"
        f"{f'<p>and {more:,} more</p>' if more else ''}</section>"
    )


def _case(case: Case) -> str:
    captured = case.captured
    told = "".join(f"<li>{escape(str(each))}</li>" for each in case.changes)
    sides = "".join(  # what is too wide is scrolled to, with the keyboard too
        f'<div role="group" tabindex="0" aria-label="{which}">{_side(case, reply)}</div>'
        for which, reply in (("before", case.before), ("after", case.after))
    )
    where = f"{captured.file.name}, record {captured.number}"
    return (
        f"<article><h3>{escape(where)}</h3><ul>{told}</ul>"
        f'<div class="sides">{sides}</div></article>'
    )


def _side(case: Case, reply: Reply) -> str:
    if reply.error:
        return f"<p><b>{escape(reply.error)}</b>: {escape(reply.reason)}</p>"
    spec = specs_of(case.captured.logged.request)[0]
    signature = spec.signature_name or DEFAULT_SIGNATURE
    prediction = Prediction(reply.outputs, spec.name, reply.version, signature, _inputs(case))
    return prediction._repr_html_()


def _inputs(case: Case) -> dict[str, Array]:
    """What was asked; tf.Examples hold it in a form of their own, and are not drawn."""
    logged = case.captured.logged
    if logged.kind != PREDICT_LOG:
        return {}
    return {name: decode_tensor(tensor) for name, tensor in logged.request.inputs.items()}
