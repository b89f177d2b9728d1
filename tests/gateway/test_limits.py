"""How much a caller may ask: the arithmetic, the book that workers share, and the answers."""

import asyncio
import math
import subprocess
import sys
import threading
from http.client import HTTPConnection

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.access.access_list import read_access
from service.gateway.access.account import Account
from service.gateway.access.addresses import address_of
from service.gateway.access.book import NEAR, SLOTS, Book
from service.gateway.access.fields import BadAccessFile
from service.gateway.access.keys import digest_of, new_key
from service.gateway.access.limits import BYTES, DAY, REQUESTS, ROWS, Limits, Quota, Rate, Spending
from service.gateway.errors import RateLimited
from service.gateway.settings import Settings
from tests.gateway.access import CASES, GRPC, HTTP
from tests.processes import free_port


@given(
    per_s=st.floats(0.01, 1e4),
    burst=st.floats(1, 1e3),
    asks=st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 50)), max_size=60),
)
def test_a_rate_lets_through_what_it_says_and_no_more(per_s, burst, asks):
    """Over any time, what passed is at most the burst, what the time brought, and one request."""
    rate, used, now, passed = Rate(REQUESTS, per_s, burst), 0.0, 1000.0, []
    for pause_s, cost in asks:
        now += pause_s
        wait_s, spent, _ = rate.spend(used, now, cost)
        if wait_s:
            assert not rate.spend(used, now + wait_s, cost)[0]  # it says when to come again
            continue
        used = spent
        passed.append((now, cost))
    for index, (began, _) in enumerate(passed):
        for ended, last in passed[index:]:
            total = sum(cost for when, cost in passed[index:] if when <= ended)
            brought = burst + per_s * (ended - began)
            assert total <= brought + max(last, max(c for _, c in passed)) + 1e-3


@pytest.mark.parametrize("now", [100.0, 1764234273.123457])
@pytest.mark.parametrize("per_s", [2, 0.3, 700])
def test_a_rate_counts_down_and_comes_back(per_s, now):
    """Whatever a double makes of the time: of the day, it tells it to a quarter of 1e-6 s."""
    rate, used = Rate(REQUESTS, per_s, 4), 0.0
    for left in (3, 2, 1, 0):
        wait_s, used, forgotten_at = rate.spend(used, now, 1)
        assert wait_s == 0
        assert rate.left(used, now) == (left, math.ceil((4 - left) / per_s))
    assert rate.spend(used, now, 1)[0] == pytest.approx(1 / per_s, abs=1e-6)
    assert forgotten_at == pytest.approx(now + 4 / per_s, abs=1e-6)
    assert rate.left(used, now + 4 / per_s) == (4, 0)


def test_what_is_larger_than_a_burst_passes_alone_and_is_paid_back():
    rate = Rate(BYTES, 10, 10)
    wait_s, used, _ = rate.spend(0, 100.0, 50)
    assert wait_s == 0
    assert rate.spend(used, 100.0, 1)[0] == pytest.approx(4.1)


def spend(book, *spendings):
    return asyncio.run(book.spend([Spending(*each) for each in spendings]))


def test_all_of_a_request_is_spent_or_nothing():
    book, requests_, rows = Book(), Rate(REQUESTS, 0.001, 5), Rate(ROWS, 0.001, 1)
    assert spend(book, ("a", rows, 1)).refused is None
    for _ in range(3):
        outcome = spend(book, ("a", requests_, 1), ("a", rows, 1))
        assert outcome.refused == rows
    assert spend(book, ("a", requests_, 5)).refused is None


def test_a_days_quota_is_each_callers_own():
    book, quota = Book(), Quota(2)
    assert [spend(book, (name, quota, 1)).refused for name in "aabab"] == [
        None,
        None,
        None,
        quota,
        None,
    ]


def test_the_book_keeps_its_size_and_forgets_who_is_nearest_to_nothing():
    book, long, short = Book(), Rate(REQUESTS, 0.001, 1), Rate(REQUESTS, 1000, 1)
    spend(book, ("kept", long, 1))
    for number in range(2000):
        spend(book, (f"other {number}", short, 1))
    assert spend(book, ("kept", long, 1)).refused == long
    assert len(book._memory) == (SLOTS + NEAR) * 24


FORKS = """
import asyncio, os
from service.gateway.access.book import Book
from service.gateway.access.limits import Rate, Spending
book, spending = Book(4), Spending("a", Rate("requests", 0.001, 100), 1)
for _ in range(4):
    if not os.fork():
        passed = sum(asyncio.run(book.spend([spending])).refused is None for _ in range(50))
        os._exit(passed)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)))
"""


def test_processes_that_were_forked_from_one_keep_one_account():
    run = [sys.executable, "-c", FORKS]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "100\n"


def test_an_account_says_which_limit_and_when():
    account = Account("a", Limits((Rate(REQUESTS, 0.1, 2), Quota(1000))), Book())
    asyncio.run(account.spend({REQUESTS: 1, BYTES: 10}))
    asyncio.run(account.spend({REQUESTS: 1}))
    with pytest.raises(
        RateLimited, match=r"More than 0\.1 requests a second, and 2 at once"
    ) as over:
        asyncio.run(account.spend({REQUESTS: 1}))
    assert 1 < over.value.retry_after_s <= 10
    assert [(each.kind, each.quota, each.left) for each in over.value.standings] == [
        (REQUESTS, 2, 0),
        (DAY, 1000, 998),
    ]


class CountingBook(Book):
    """Knows how often it was asked."""

    asked = 0

    async def spend(self, spendings):
        self.asked += 1
        return await super().spend(spendings)


@given(
    burst=st.integers(1, 2000),
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=400),
)
def test_what_workers_spend_ahead_gives_nobody_more_and_hardly_less(burst, turns):
    """Of four workers before one book, in any order."""
    rate, book = Rate(ROWS, 1e-6, burst), Book(4)
    workers = [Account("a", Limits((rate,)), book) for _ in range(4)]

    async def spent():
        rows = 0
        for worker, cost in [*turns, *[(each, 1) for each in range(4)] * burst]:
            try:
                await workers[worker].spend({ROWS: cost})
            except RateLimited:
                continue
            rows += cost
        return rows

    # What is over the burst passes alone; of what is left each has a part of a row at the most.
    assert burst - 5 <= asyncio.run(spent()) <= max(burst, 9)
    assert sum(asyncio.run(_at_hand(worker)) for worker in workers) == 0


async def _at_hand(account, kind=ROWS):
    """How many more of a kind pass."""
    passed = 0
    while True:
        try:
            await account.spend({kind: 1})
        except RateLimited:
            return passed
        passed += 1


@pytest.mark.parametrize(("burst", "workers"), [(200, 64), (200, 1), (2000, 4), (20_000, 64)])
def test_what_all_workers_have_at_hand_is_a_hundredth_of_a_burst(burst, workers):
    """However many there are, a caller that asks one of them is refused no sooner."""
    rate, book = Rate(REQUESTS, 1e-6, burst), Book(workers)
    accounts = [Account("a", Limits((rate,)), book) for _ in range(workers)]

    async def passed():
        for account in accounts:
            await account.spend({REQUESTS: 1})
        return workers + await _at_hand(accounts[0], REQUESTS)

    assert 0.99 * burst <= asyncio.run(passed()) <= burst


def test_most_of_a_large_rate_is_paid_at_hand():
    book = CountingBook()
    account = Account("a", Limits((Rate(REQUESTS, 1000, 1000), Rate(BYTES, 1e6, 1e6))), book)

    async def ask():
        for _ in range(500):
            await account.spend({REQUESTS: 1, BYTES: 100})

    asyncio.run(ask())
    assert book.asked <= 60


LARGE = Rate(REQUESTS, 1000, 1000)  # of which ten are spent ahead
MANY = 20


@pytest.mark.parametrize(
    ("limits", "paid"),
    [
        ((LARGE,), 10),
        ((LARGE, Rate(BYTES, 1e4, 1e4)), 1),  # of 60 bytes, where a hundred are spent ahead
        ((LARGE, Rate(ROWS, 1, 1)), 10),
        ((LARGE, Quota(1000)), 0),
        ((Quota(1000),), 0),
        ((Rate(ROWS, 1, 1),), MANY),
        ((), MANY),
    ],
    ids=["rate", "bytes", "rows beside", "day beside", "day", "rows", "none"],
)
def test_of_what_is_not_all_at_hand_nothing_is_paid(limits, paid):
    account = Account("a", Limits(limits), Book())
    asyncio.run(account.spend({REQUESTS: 1, BYTES: 60}))
    left = dict(account._at_hand)
    for number in range(MANY):
        assert account.pay_request(60) == (number < paid)
        if number < paid:
            left[REQUESTS], left[BYTES] = left[REQUESTS] - 1, left[BYTES] - 60
        assert account._at_hand == left


async def pay(account, size, alone=False):
    """For a request of so many bytes, or for the bytes alone, as the gateway does: of what is at
    hand, where that is enough."""
    if not (account.pay(BYTES, size) if alone else account.pay_request(size)):
        await account.spend({BYTES: size} if alone else {REQUESTS: 1, BYTES: size})


@given(
    burst=st.integers(1, 2000),
    asks=st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=200),
)
def test_no_more_is_at_hand_than_is_spent_ahead(burst, asks):
    """Whatever is asked, and where one kind has to be asked for each time."""
    book, large = Book(), Rate(BYTES, 1e-6, 1e5)
    account = Account("a", Limits((Rate(REQUESTS, 1e-6, burst), large)), book)

    async def sent():
        total = 0
        for size, alone in asks:
            try:
                await pay(account, size, alone)
            except RateLimited:
                continue
            total += size
            assert account._at_hand[BYTES] <= 1000 + 1e-6
            assert account._at_hand[REQUESTS] <= burst / 100 + 1e-6
        return total

    total = asyncio.run(sent())
    used = asyncio.run(book.spend([Spending("a", large, 0)]))
    left, _ = large.left(used.used[0], used.now)
    assert abs(1e5 - left - total) <= 1001 or total > 1e5


def test_a_caller_that_is_refused_ahead_gets_what_is_left_alone():
    book, rate = CountingBook(), Rate(REQUESTS, 1e-6, 200)
    spend(book, ("a", rate, 199))
    account = Account("a", Limits((rate,)), book)
    asyncio.run(account.spend({REQUESTS: 1}))
    with pytest.raises(RateLimited) as over:
        asyncio.run(account.spend({REQUESTS: 1}))
    assert [each.left for each in over.value.standings] == [0]
    assert book.asked == 4  # itself, ahead, alone; and while it is known to be spent once


def test_a_days_requests_are_each_counted():
    book = CountingBook()
    account = Account("a", Limits((Rate(REQUESTS, 1e6, 1e6), Quota(50))), book)

    async def ask():
        for _ in range(50):
            await account.spend({REQUESTS: 1})
        with pytest.raises(RateLimited, match="The 50 requests of this day"):
            await account.spend({REQUESTS: 1})

    asyncio.run(ask())


@pytest.mark.parametrize(
    "text, message",
    [
        ("requests_per_s = 0", "requests_per_s: expected a number over 0, got 0"),
        ("requests_per_s = true", "requests_per_s: expected a number over 0, got True"),
        ("rows_per_s = nan", "rows_per_s: expected a number over 0, got nan"),
        ("bytes_per_s = inf", "bytes_per_s: expected a number over 0, got inf"),
        ("burst = 3", "burst goes with requests_per_s"),
        ("places = 1.5", "places: expected a whole number, got 1.5"),
        ('requests_per_day = "9"', "requests_per_day: expected a number"),
    ],
)
def test_a_bad_limit_is_refused_with_the_place(text, message):
    with pytest.raises(BadAccessFile, match=rf"^anonymous\.{message}"):
        read_access(f"[anonymous]\nmodels = []\n{text}")


@pytest.mark.parametrize(
    "peer, forwarded, proxies, address",
    [
        ("10.0.0.1", None, 0, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6", 0, "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", 1, "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", 2, "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4", 3, "1.2.3.4"),
        ("10.0.0.1", None, 1, "10.0.0.1"),
        ("10.0.0.1", "[2001:db8:1:2:3::4]:99", 1, "2001:db8:1:2::/64"),
        ("ipv4:10.0.0.1:4242", None, 0, "10.0.0.1"),
        ("ipv6:%5B2001:db8::7%5D:4242", None, 0, "2001:db8::/64"),
        ("::ffff:10.0.0.1", None, 0, "10.0.0.1"),
        ("-", None, 0, "-"),
    ],
)
def test_whose_address_it_is(peer, forwarded, proxies, address):
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert address_of(peer, headers, proxies) == address


# One key for each case of each dialect: what one has spent is nobody else's.
LIMITS = {
    "rate": "requests_per_s = 0.001\nburst = 1",
    "rows": "rows_per_s = 0.001",
    "bytes": "bytes_per_s = 0.001",
    "day": "requests_per_day = 1",
}
OVER = {
    "rate": "More than 0.001 requests a second, and 1 at once; try again in ",
    "rows": "More than 0.001 rows a second, and 1 at once; try again in ",
    "bytes": "More than 0.001 bytes of bodies a second, and 1 at once; try again in ",
    "day": "The 1 requests of this day (UTC) are used up; try again in ",
}
ASKED = [(*case, limit) for case in CASES for limit in LIMITS]
ASKED = [case for case in ASKED if case[1:] != ("image", "rows")]  # it is none, so it has no rows
KEYS = {case: new_key("-".join(case)) for case in ASKED}
BUSY = new_key("busy")
BOASTING = {way: new_key(f"boasting-{way}") for way in ("front", "wsgi")}


@pytest.fixture(scope="module")
def doors(launch_grpc_gateway, launch_gateway, slow_server, tmp_path_factory):
    service, model_server = slow_server
    service.go.set()
    path = tmp_path_factory.mktemp("limits") / "access.toml"
    entries = [
        f'[keys."{"-".join(case)}"]\nsha256 = "{digest_of(key)}"\nmodels = ["*"]\n{LIMITS[case[2]]}'
        for case, key in KEYS.items()
    ]
    entries.append(f'[keys.busy]\nsha256 = "{digest_of(BUSY)}"\nmodels = ["*"]\nplaces = 1')
    entries += [
        f'[keys.boasting-{way}]\nsha256 = "{digest_of(key)}"\nmodels = ["*"]\nbytes_per_s = 100'
        for way, key in BOASTING.items()
    ]
    entries.append('[anonymous]\nmodels = ["*"]\nrequests_per_s = 0.001\nburst = 2')
    path.write_text("\n".join(entries))
    settings = {"models": "affine", "access_file": path, "trusted_proxies": 1}
    front, address = launch_grpc_gateway(model_server, workers=2, **settings)
    wsgi = launch_gateway(model_server, "wsgi", **settings)
    return {"front": front.url, "wsgi": wsgi.url, "grpc": address}


@pytest.mark.parametrize("way, dialect, limit", ASKED, ids=map(" ".join, ASKED))
def test_who_asks_too_much_is_told_when_to_come_again(doors, way, dialect, limit):
    headers = {"Authorization": f"Bearer {KEYS[way, dialect, limit]}"}
    ask = (HTTP | GRPC)[dialect]
    assert ask(doors[way], "affine", headers).status == 200
    refused = ask(doors[way], "affine", headers)
    assert (refused.status, refused.message[: len(OVER[limit])]) == (429, OVER[limit])
    assert int(refused.headers["retry-after"]) >= 1
    kind = {"rate": "requests"}.get(limit, limit)
    assert f'"{kind}";q=1;w=' in refused.headers["ratelimit-policy"]
    assert f'"{kind}";r=0;t=' in refused.headers["ratelimit"]


@pytest.mark.parametrize("limit", LIMITS)
def test_whatever_limit_it_was_the_refusal_is_counted(launch_gateway, slow_server, tmp_path, limit):
    service, model_server = slow_server
    service.go.set()
    path, key, admin = tmp_path / "access.toml", new_key("k"), free_port()
    path.write_text(f'[keys.k]\nsha256 = "{digest_of(key)}"\nmodels = ["*"]\n{LIMITS[limit]}')
    url = launch_gateway(model_server, access_file=path, admin_port=admin).url
    headers = {"Authorization": f"Bearer {key}"}
    statuses = [HTTP["json"](url, "affine", headers).status for _ in range(3)]
    assert statuses == [200, 429, 429]
    metrics = requests.get(f"http://127.0.0.1:{admin}/metrics", timeout=30).text
    assert 'sluice_refused_total{reason="RateLimited"} 2.0' in metrics


@pytest.mark.parametrize("way", ["front", "wsgi"])
def test_a_body_that_is_announced_to_be_endless_is_not_paid_back_for_years(doors, way):
    host, port = doors[way].removeprefix("http://").split(":")
    headers = {"Authorization": f"Bearer {BOASTING[way]}"}
    connection = HTTPConnection(host, int(port), timeout=30)
    connection.putrequest("POST", "/v1/models/affine:predict")
    for name, value in (headers | {"Content-Length": str(10**15)}).items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    refused = HTTP["json"](doors[way], "affine", headers)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) <= Settings().max_body_bytes / 100


@pytest.mark.parametrize("way", ["front", "wsgi"])
def test_without_a_key_each_address_has_its_own(doors, way):
    def ask(forwarded):
        return HTTP["json"](doors[way], "affine", {"X-Forwarded-For": forwarded})

    assert ask("1.1.1.1").status == 200
    assert [ask("6.6.6.6, 1.1.1.1").status for _ in range(2)] == [200, 429]
    assert ask("1.1.1.1, 2.2.2.2").status == 200


@pytest.fixture(scope="module")
def one_worker(doors, launch_grpc_gateway, slow_server, tmp_path_factory):
    """By way, where it is asked, of gateways with one worker: places are each worker's."""
    path = tmp_path_factory.mktemp("places") / "access.toml"
    path.write_text(f'[keys.busy]\nsha256 = "{digest_of(BUSY)}"\nmodels = ["*"]\nplaces = 1')
    front, address = launch_grpc_gateway(slow_server[1], access_file=path)
    where = {"front": front.url, "wsgi": doors["wsgi"], "grpc": address}
    return where | {"processes": [front]}


@pytest.mark.parametrize("way, dialect", CASES, ids=map(" ".join, CASES))
def test_who_has_all_of_its_places_is_told_to_try_again(one_worker, slow, way, dialect):
    service, _ = slow
    headers, held = {"X-API-Key": BUSY}, []
    holder_url = one_worker["front" if way == "grpc" else way]
    holder = threading.Thread(
        target=lambda: held.append(HTTP["json"](holder_url, "m", headers).status)
    )
    holder.start()
    assert service.arrived.wait(30)
    refused = (HTTP | GRPC)[dialect](one_worker[way], "m", headers)
    service.go.set()
    holder.join()
    assert held == [200]
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.message == "All 1 places that you have are taken; try again"
    assert (HTTP | GRPC)[dialect](one_worker[way], "m", headers).status == 200


def test_no_key_is_in_the_log_of_a_refusal(one_worker, slow):
    (gateway,) = one_worker["processes"]
    slow[0].go.set()
    HTTP["json"](gateway.url, "m", {"Authorization": f"Bearer {BUSY}", "X-Request-Id": "the-last"})
    gateway.wait_for(r"busy@127\.0\.0\.1 the-last POST /v1/models/m:predict 200 ")
    secrets = (BUSY, BUSY[-64:], digest_of(BUSY))
    assert not [secret for secret in secrets if secret in gateway.log]
