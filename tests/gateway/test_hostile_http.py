"""Mutated requests on the wire of a live gateway: each is answered in the one shape of all answers
or its connection is closed, no worker is lost, and others are served meanwhile."""

import asyncio
import contextlib
import gzip
import io
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.gateway.hostile import Connection, Workers, wait_until_ready
from tests.mutations import mutate_bytes

CONNECTIONS = 48
PATIENCE_S = 60.0  # an answer that takes longer is none
HUNG_UP = 0.1  # the share of messages whose client does not wait for an answer
SHOWN = 400  # bytes of what a fault is about
TIMEOUT_S = 0.5  # of heads and bodies that do not come
LARGE_VALUES = 256 * 256 * 3  # of a normal large request: an image
MOST_MEMORY = 3.0  # of what the normal large request takes

# What may be answered to hostile bytes: no 500, no 502.
PROPER = {*range(200, 500), 501, 503, 504, 505}


STATUS_LINE = re.compile(rb"HTTP/1\.[01] \d\d\d [A-Z][^\r\n]*")
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


def request(path, body=b"", *lines, method="POST", length=None):
    """The bytes of a request; `length` is what it says of its body, if that is not true."""
    head = [f"{method} {path} HTTP/1.1", "Host: x", *lines]
    if body or method == "POST":
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode() + body


def document(value):
    return json.dumps(value).encode()


def chunks(body, *sizes, extension=b"", trailers=b""):
    pieces, start = [], 0
    for size in [*sizes, len(body)]:
        piece = body[start : start + size]
        start += size
        if piece:
            pieces.append(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece))
    return b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


def chunked(path, body, *lines, **how):
    head = [f"POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *lines]
    return "\r\n".join([*head, "", ""]).encode() + chunks(body, 3, 5, **how)


def saved(save, *args, **named):
    buffer = io.BytesIO()
    save(buffer, *args, **named)
    return buffer.getvalue()


def picture(kind):
    return saved(Image.new("RGB", (9, 7), (1, 2, 3)).save, kind)


def form(**fields):
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in fields.items()
    ]
    return b"".join(parts) + b"--B--\r\n"


AFFINE, PAIR, DTYPES = (f"/v1/models/{name}:predict" for name in ("affine", "pair", "dtypes"))
INFER = "/v2/models/affine/infer"
BODY = document({"instances": [1.0, 2.5]})
TENSOR = {"name": "x", "shape": [2], "datatype": "FP32"}
BINARY_HEAD = document({"inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]})
TEXT = {"i32": 1, "i64": 2, "u8": 3, "f64": 0.5, "flag": True, "text": {"b64": "AAE="}}

SEEDS = {
    "rows": request(AFFINE, BODY, "Content-Type: application/json"),
    "of a version": request("/v1/models/affine/versions/1:predict", BODY),
    "of a label": request("/v1/models/affine/labels/stable:predict", BODY),
    "columns": request(
        PAIR, document({"inputs": {"image": [[[[1], [2]], [[3], [4]]]], "meta": [[1, 2, 3]]}})
    ),
    "every dtype": request(DTYPES, document({"instances": [TEXT, TEXT]})),
    "classify": request("/v1/models/affine:classify", document({"examples": [{"x": [0.5]}]})),
    "regress": request("/v1/models/affine:regress", document({"examples": [{"x": 0.5}]})),
    "infer": request(INFER, document({"inputs": [TENSOR | {"data": [1, 2]}], "id": "7"})),
    "infer, binary": request(
        INFER, BINARY_HEAD + bytes(8), f"Inference-Header-Content-Length: {len(BINARY_HEAD)}"
    ),
    "npy": request(
        AFFINE,
        saved(np.save, np.zeros(3, np.float32)),
        "Content-Type: application/x-npy",
        "Accept: application/x-npy",
    ),
    "npz": request(
        AFFINE,
        saved(np.savez_compressed, x=np.zeros(3, np.float32)),
        "Content-Type: application/x-npz",
        "Accept: application/x-npz",
    ),
    "form": request(
        PAIR,
        form(image=picture("PNG"), meta=b"[1, 2, 3]"),
        "Content-Type: multipart/form-data; boundary=B",
    ),
    **{
        kind: request(
            f"{AFFINE}?signature_name=classify", picture(kind), f"Content-Type: image/{kind}"
        )
        for kind in ("png", "jpeg", "gif", "bmp")
    },
    "gzip": request(AFFINE, gzip.compress(BODY, mtime=0), "Content-Encoding: gzip"),
    "chunked": chunked(AFFINE, BODY),
    "chunked infer": chunked(INFER, BINARY_HEAD + bytes(8), extension=b";a=b"),
    "trailers": chunked(AFFINE, BODY, "Trailer: A", trailers=b"A: b\r\n"),
    "expecting": request(AFFINE, BODY, "Expect: 100-continue"),
    "timed": request(AFFINE, BODY, "X-Request-Timeout-Ms: 20000", "X-Request-Id: a"),
    "best": request(f"{AFFINE}?top_k=2", BODY, "Server-Timing: x", "X-Sluice-Timing: 1"),
    "explained": request(f"{AFFINE}?explain=true&resize=fit", BODY, "Accept: image/png"),
    "traced": request(AFFINE, BODY, f"traceparent: 00-{'a' * 32}-{'b' * 16}-01", "tracestate: a=b"),
    "not stored": request(INFER, document({"inputs": [TENSOR]}), "Cache-Control: no-store"),
    "status": request("/v1/models/affine", method="GET"),
    "metadata": request("/v1/models/affine/metadata", method="GET"),
    "infer's metadata": request("/v2/models/affine/versions/stable", method="GET"),
    "index": request("/v2/repository/index", b'{"ready": true}'),
    "statistics": request("/v2/models/affine/stats", method="GET"),
    "health": request("/healthz", method="GET"),
    "ready": request("/v2/health/ready", method="HEAD"),
    "page": request("/docs/affine", method="GET"),
    "a page's body": request("/docs", b"x" * 100),
}

# What is no HTTP/1.1, or wants to become something else.
STRANGERS = {
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "gRPC": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\5\1\4\0\0\0\1\x82\x86"
    b"\x84\x41\x8a\0\0\x0c\0\1\0\0\0\1\0\0\0\0\7\n\5\n\3abc",
    "TLS": bytes.fromhex("160301020001fc0303") + bytes(100),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a proxy's line": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + SEEDS["rows"],
    "websocket": request(
        AFFINE,
        b"",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==",
        method="GET",
    ),
    "h2c": request(
        AFFINE, BODY, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMA"
    ),
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
    "HTTP/3": b"GET /healthz HTTP/3.0\r\n\r\n",
    "line ends": b"\r\n\r\n\n\n\r\r",
}

LINES = [
    *(b"Content-Length: -1", b"Content-Length: 0", b"Content-Length: 99999999999999999999"),
    *(b"Content-Length: 1\r\nContent-Length: 2", b"Content-Length: 5, 5", b"Content-Length: +5"),
    *(b"Content-Length: 0x10", b"Content-Length: \xb2", b"Content-Length:", b"Content-Length: 5 5"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x"),
    *(b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding : chunked", b"Expect: 9"),
    *(b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Encoding: gzip, gzip"),
    *(b"Content-Type: application/x-npy", b"Content-Type: application/x-npz", b"Content-Type: a"),
    *(b"Content-Type: multipart/form-data", b"Content-Type: multipart/form-data; boundary=\xff"),
    *(b"Content-Type: image/png", b"Content-Type: image/", b"Content-Type: ;;;=;\x01"),
    *(b"Content-Type: application/json; charset=utf-16", b"Content-Type: " + b"a/" * 3000),
    *(b"Inference-Header-Content-Length: 5", b"Inference-Header-Content-Length: " + b"9" * 5000),
    *(b"Inference-Header-Content-Length: -1", b"X-Request-Timeout-Ms: 0", b"Accept: \xff;q=x"),
    *(b"X-Request-Timeout-Ms: 1", b"X-Request-Id: " + b"\xe9" * 300, b"X-Request-Id: a\x1b[31m"),
    *(
        b"traceparent: \xff",
        b"tracestate: " + b"a" * 7000,
        b"Accept: application/x-npy",
        b"Host: y",
    ),
    *(b"Connection: close", b"Connection: \xff, upgrade", b"Upgrade: h2c", b"TE: trailers", b":"),
    *(b" folded: line", b"no colon", b"nul: \0", b"a\0b: c", b"under_score: 1", b": nothing"),
    *(
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-For: 1",
        b"SCRIPT_NAME: /x",
        b"Cookie: " + b"a" * 9,
    ),
    *(b"Forwarded: for=\x01", b"Range: bytes=0-0", b"If-None-Match: *", b"\xff\xfe: \xfd"),
]
TARGETS = [
    *(
        b"*",
        b"/",
        b"//",
        b"http://x/healthz",
        b"/%",
        b"/%00",
        b"/%ff",
        b"/v1/models/%2e%2e/x:predict",
    ),
    *(b"/v1/models/affine:predict?a=%zz", b"/v1/models/affine:predict?top_k=" + b"9" * 500),
    *(b"/v1/models/affine:predict?signature_name=%00", b"/v1/models/" + b"a" * 8000, b"x:443"),
    *(b"/v1/models/affine/versions/" + b"9" * 30 + b":predict", b"/V1/MODELS/affine", b"/v1/"),
    *(b"/v2/models/affine/versions/\xc3\x28/infer", b"/v2/models//infer", b"/../../etc/passwd"),
    *(b"/v1/models/affine:predict#x", b"/v1/models/affine:explode", b"/docs/%3Cscript%3E"),
    *(b"/openapi.json", b"/metrics", b"/v2/models/\xff/stats", b"\xff", b"/v1/models/a/labels/%F0"),
    *(b"/v1/models/%0d%0aX:predict", b"/docs/..%2f", b"/v1/models/a;b=c:predict", b"", b"a b"),
]
METHODS = [b"GET", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"P\xffST", b"A" * 99]
VERSIONS = [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/9", b"", b"x"]
BODIES = [
    *(b"", b"{}", b"[]", b"null", b"\0", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 20_000),
    *(b'{"instances":[' + b"1," * 30_000 + b"1]}", b'{"instances":[' + b"9" * 9000 + b"]}"),
    *(b'{"instances":[NaN,1e999]}', b'{"instances":["\\ud800"]}', b'{"instances":[[[]]]}'),
    *(b'{"instances":{"x":1}}', b'{"inputs":{"b64":1}}', b'{"instances":[1],"inputs":[1]}'),
    *(b'{"instances":[1],"signature_name":["x"]}', b'{"inputs":[{"name":"x","shape":[-1]}]}'),
    *(
        b'{"inputs":[{"name":"x","datatype":["FP32"],"shape":[1],"data":[1]}]}',
        b'{"inputs":[null]}',
    ),
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[4611686018427387904,4],"data":[]}]}',
    b"\x93NUMPY\1\0\x46\0{'descr':'<U0','fortran_order':False,'shape':(4611686018427387904,)}\n",
    b"\x93NUMPY\1\0\x36\0{'descr':'<f4','fortran_order':False,'shape':(-1,-4)}\n",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x75\x30\0\0\x75\x30\x08\2\0\0\0" + bytes(20),
    b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
    b"PK\5\6" + bytes(18),
    gzip.compress(b"0," * 4_000_000, mtime=0),
]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\x0b", b"\x85", b"\r\n\r\n", b"\xff" * 9),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b'1;x="\r\n', b"A" * 9000, b"%0d%0a"),
    *(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"[[1],[2", b"NaN", b"\\u0000"),
]


def _anywhere(message, rng):
    if rng.random() < 0.5:
        return mutate_bytes(message, rng)
    at = rng.randrange(len(message) + 1)
    return message[:at] + rng.choice(PIECES) + message[at + rng.choice((0, 0, 1, 9)) :]


def _line(message, rng):
    """A line more, or one less."""
    lines, end, body = message.partition(b"\r\n\r\n")
    lines = lines.split(b"\r\n")
    at = rng.randrange(1, len(lines) + 1)
    lines[at : at + rng.choice((0, 0, 1))] = rng.choice(([rng.choice(LINES)], []))
    return b"\r\n".join(lines) + end + body


def _flood(message, rng):
    start, end, rest = message.partition(b"\r\n")
    line = rng.choice((b"a: b\r\n", b"a%d: b\r\n", b"Cookie: " + b"c" * 4000 + b"\r\n"))
    many = rng.choice((30, 99, 101, 1000))
    return start + end + b"".join(line.replace(b"%d", b"%d" % n) for n in range(many)) + rest


def _first_line(message, rng):
    line, end, rest = message.partition(b"\r\n")
    words = line.split(b" ")
    place = rng.randrange(3)
    words[place : place + 1] = [rng.choice((METHODS, TARGETS, VERSIONS)[place])]
    return b" ".join(words) + end + rest


def _body(message, rng):
    """Another body, whose length is told truly."""
    head, _, body = message.partition(b"\r\n\r\n")
    body = rng.choice(BODIES) if rng.random() < 0.3 else mutate_bytes(body, rng)
    if b"chunked" in head:
        return head + b"\r\n\r\n" + chunks(body, *rng.choices(range(1, 9), k=3))
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


def _lie(message, rng):
    """A length that is not the body's, whichever way it is told."""
    wrong = rng.choice((b"0", b"1", b"7", b"9999", b"67108865", b"1" * 18))
    if b"chunked" in message:
        head, end, body = message.partition(b"\r\n\r\n")
        return head + end + wrong + body[1:]
    return re.sub(rb"Content-Length: \d+", b"Content-Length: " + wrong, message)


def _chunked(message, rng):
    head, end, body = message.partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
    body = chunks(
        body,
        *rng.choices(range(1, 50), k=rng.randrange(9)),
        extension=rng.choice((b"", b";", b";a", b';a="b"', b" ", b";" + b"x" * 9000)),
        trailers=rng.choice(
            (b"", b"A: b\r\n", b"Content-Length: 5\r\n", b"A: b\r\n" * 500, b"x\r\n")
        ),
    )
    return head + end + (body if rng.random() < 0.5 else mutate_bytes(body, rng))


def _packed(message, rng):
    head, end, body = message.partition(b"\r\n\r\n")
    body = gzip.compress(body, mtime=0)
    body = rng.choice((body, body[:-4], body * 2, mutate_bytes(body, rng)))
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\nContent-Encoding: gzip" + end + body


def _followed(message, rng):
    return message + rng.choice([*SEEDS.values(), *STRANGERS.values()])


def _stranger(_, rng):
    message = rng.choice(list(STRANGERS.values()))
    return message if rng.random() < 0.5 else mutate_bytes(message, rng)


CHANGES = [
    *([_anywhere] * 4),
    *([_line] * 4),
    *([_body] * 6),
    *(_flood, _first_line, _lie, _chunked, _packed, _followed, _stranger),
]


def mutated(rng):
    message = rng.choice(list(SEEDS.values()))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        message = rng.choice(CHANGES)(message, rng)
    return message


class Answer:
    """One answer, as it was sent."""

    def __init__(self, head, body, is_head):
        self.head, self.body, self.is_head = head, body, is_head
        self.status = int(head[9:12])

    @property
    def fault(self):
        """What is wrong with it; "" if nothing is."""
        if self.status not in PROPER:
            return "a status that says it is our fault"
        if self.status < 400 or self.is_head:
            return ""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return "an error that is no document"
        if b"application/json" not in self.head.lower():
            return "an error that is not called JSON"
        if self.status == 503 and b"retry-after" not in self.head.lower():
            return "no word of when to come again"
        return "" if error and isinstance(error, str) else "an error without a word"


def answers_in(data, is_head):
    """The answers in what came, and what is left over. Those to HEAD have no body."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end or not STATUS_LINE.match(head):
            break
        if head[9:12] == b"100":
            data = rest
            continue
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if is_head and (not rest or rest.startswith(b"HTTP/1.")):
            size = 0
        if len(rest) < size:
            break
        found.append(Answer(head, rest[:size], is_head and not size))
        data = rest[size:]
    return found, data


class Client:
    """Sends messages, each on a connection of its own, in pieces, and keeps what came of them."""

    def __init__(self, port, seed):
        self.port, self.rng = port, random.Random(seed)
        self.outcomes = Counter()
        self.faults = []

    async def send(self, message):
        """Again where the connection was closed without a word: so is one on which nothing comes
        for TIMEOUT_S, which a busy machine may let pass."""
        if not (await self._ask(message) or await self._ask(message)) and message.strip(b"\r\n"):
            self._blame("closed without a word", message)

    async def _ask(self, message):
        """Whether there was an answer, or nobody waited for one."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        try:
            for piece in self._pieces(message):
                connection.write(piece)
                await asyncio.sleep(0.001 * self.rng.randrange(2))
            if self.rng.random() < HUNG_UP:
                self.outcomes["hung up"] += 1
                return True
            return await self._look_at(connection, message)
        finally:
            connection.abort()

    async def _look_at(self, connection, message):
        """Until there are whole answers and nothing else, or nothing more can come."""
        answers, left = [], b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not answers or left:
                    was_open = connection.is_open
                    answers, left = answers_in(connection.data, b"HEAD " in message)
                    if not was_open or (answers and not left):
                        break
                    await connection.moved.wait()
                    connection.moved.clear()
        for answer in answers:
            self.outcomes[answer.status] += 1
            if answer.fault:
                self._blame(answer.fault, message, answer.head, answer.body)
        if left or (connection.is_open and not answers):
            self._blame("no end of it", message, left)
        return bool(answers or left or connection.is_open)

    def _blame(self, fault, *what):
        self.faults.append((fault, *(repr(each[:SHOWN]) for each in what)))

    def _pieces(self, message):
        many = self.rng.choice((0, 0, 1, 3))
        places = sorted(self.rng.randrange(len(message) + 1) for _ in range(many))
        return [message[a:b] for a, b in zip([0, *places], [*places, len(message)], strict=True)]


GOOD, RIGHT = SEEDS["rows"], {"predictions": [3.5, 4.25]}


async def good_ones(port, stop):
    """How many good requests were answered, one after the other, until `stop`."""
    count = 0
    while not stop.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number in range(20):
                writer.write(GOOD)
                async with asyncio.timeout(PATIENCE_S):
                    try:
                        head = await reader.readuntil(b"\r\n\r\n")
                    except (asyncio.IncompleteReadError, ConnectionResetError) as error:
                        if number or getattr(error, "partial", b""):
                            raise
                        break  # closed as one on which no head came in time
                    body = await reader.readexactly(int(LENGTH.search(head)[1]))
                assert (head[9:12], json.loads(body)) == (b"200", RIGHT)
                count += 1
                await asyncio.sleep(0.05)
        finally:
            writer.transport.abort()
    return count


async def attack(client, messages):
    stop = asyncio.Event()
    good = asyncio.create_task(good_ones(client.port, stop))
    left = iter(messages)

    async def one():
        for message in left:
            await client.send(message)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(one())
    finally:
        stop.set()
    return await good


@pytest.fixture(scope="module")
def launch(launch_gateway, modelserver):
    """A gateway whose models are there, and that waits so long for clients."""

    def launched(timeout_s):
        gateway = launch_gateway(
            modelserver.address,
            models="affine,pair,dtypes",
            ready_when="all",
            workers=2,
            head_timeout_s=timeout_s,
            body_timeout_s=timeout_s,
            max_wait_s=PATIENCE_S,
        )
        wait_until_ready(gateway)
        return gateway

    return launched


@pytest.fixture(scope="module")
def gateway(launch):
    return launch(TIMEOUT_S)


@pytest.fixture(scope="module")
def patient_gateway(launch):
    """For tests whose own client may stand still for longer, on a busy machine."""
    return launch(PATIENCE_S)


@pytest.mark.parametrize(
    "count", [pytest.param(1500, id="some"), pytest.param(20_000, id="all", marks=pytest.mark.slow)]
)
def test_mutated_requests_are_answered_and_harm_nobody(gateway, count):
    port = int(gateway.url.rpartition(":")[2])
    workers = Workers(gateway)
    client = Client(port, seed=7)
    large = request(AFFINE, document({"instances": [0.123456789] * LARGE_VALUES}))
    asyncio.run(attack(client, [large] * 4))
    usual_mb = workers.peak_mb()
    rng = random.Random(13)
    good = asyncio.run(attack(client, (mutated(rng) for _ in range(count))))
    print(
        dict(client.outcomes),
        f"; {good} good ones; {usual_mb:.0f} MB, then {workers.peak_mb():.0f}",
    )
    for fault in client.faults[:40]:
        print(*fault, sep="\n    ")
    assert not client.faults, f"{len(client.faults)} faults"
    workers.check()
    assert workers.peak_mb() < MOST_MEMORY * usual_mb


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["rows", "infer, binary", "npy", "form", "gzip", "chunked", "trailers", "expecting"]
)
def test_a_request_may_be_cut_at_any_byte(patient_gateway, name):
    message, port = SEEDS[name], int(patient_gateway.url.rpartition(":")[2])
    is_head = message.startswith(b"HEAD")

    async def asked(*pieces):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        for piece in pieces:
            connection.write(piece)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(PATIENCE_S):
            while not (answers := answers_in(connection.data, is_head)[0]):
                assert connection.is_open
                await connection.moved.wait()
                connection.moved.clear()
        connection.abort()
        return answers[0].status

    async def cut_everywhere():
        (whole,) = {await asked(message)}
        cuts = range(1, len(message))
        for start in range(0, len(cuts), CONNECTIONS):
            places = cuts[start : start + CONNECTIONS]
            found = await asyncio.gather(*(asked(message[:at], message[at:]) for at in places))
            assert set(found) == {whole}

    asyncio.run(cut_everywhere())
