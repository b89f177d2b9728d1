"""Where a rollout stands, and what has been seen of it, in words."""

from service.rollout.evidence import Answers, Evidence
from sluice.client.tables import table
from sluice.wire.rollouts import Rollout, Stage


def described(found: Rollout) -> str:
    """Where it stands, in words.

    >>> described(Rollout("a", 1, 2, Stage.CANARY, canary_share=0.1))
    'canary: version 1 answers, and 2 answers 0.1 of the requests'
    """
    if found.live == found.next:
        return f"version {found.live} is held"
    told = f"{found.stage.replace('_', ' ')}: version {found.answering} answers"
    if found.canary:
        return f"{told}, and {found.next} answers {found.canary:.3g} of the requests"
    if found.shadow:
        return f"{told}, and {found.next} is asked {found.shadow:.3g} of the same for nobody"
    if found.stage is Stage.REPLAY:
        return f"{told}, and both are asked what was captured, for nobody"
    return told


def as_text(seen: Evidence) -> str:
    """What has been seen, as it is printed.

    >>> print(as_text(Evidence("a", pairs=400, changed=2, changes={"class": 1, "score": 2})))
    Of 400 requests that both were asked 2 are answered otherwise: class 1, score 2
    ANSWERED BY        REQUESTS  ERRORS  P50 MS  P99 MS
    live               0         0       -       -
    next, as a canary  0         0       -       -
    """
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(seen.changes.items()))
    told = (
        f"Of {seen.pairs:,} requests that both were asked {seen.changed:,} are answered otherwise"
        f"{f': {kinds}' if kinds else ''}"
    )
    if seen.dropped:
        told += f"; {seen.dropped:,} more were not compared, for want of room or of an answer"
    rows = [["live", *_cells(seen.stable)], ["next, as a canary", *_cells(seen.canary)]]
    return f"{told}\n{table(['answered by', 'requests', 'errors', 'p50 ms', 'p99 ms'], rows)}"


def _cells(answers: Answers) -> list[str]:
    times = [answers.quantile_s(share) for share in (0.5, 0.99)]
    return [
        f"{answers.requests:,}",
        f"{answers.errors:,}",
        *("-" if each is None else f"{each * 1e3:.3g}" for each in times),
    ]
