"""What hostile callers do, each attack for some seconds from a process of its own.

An attack uses nothing but a TCP connection and requests that anybody can send. It returns the status of every
reply that it read.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from PIL import Image

from benchmarks.soak import FRAMES

#: Port, and the end in seconds of the monotonic clock; returns how often each status came.
Attack: TypeAlias = Callable[[int, float], Awaitable[Counter[int]]]

MIB = 1 << 20
JSON = "application/json"
_DEAD_S = 20.0


def request(
    path: str, body: bytes = b"", content: str = JSON, method: str = "POST", fields: str = ""
) -> bytes:
    """The bytes of a request; ``fields`` are further header lines, each with its end."""
    head = f"{method} {path} HTTP/1.1\r\nHost: sage\r\nContent-Type: {content}\r\n{fields}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(port: int, data: bytes, *, read: bool = True, hold_s: float = 0.0) -> int:
    """Send bytes on a connection of their own; returns the status of the first reply, 0 when none came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * MIB)
    status = 0
    try:
        writer.write(data)
        with suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_DEAD_S):
                await writer.drain()
                if read:
                    status = await _status(reader)
        await asyncio.sleep(hold_s)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return status


async def _status(reader: asyncio.StreamReader) -> int:
    words = (await reader.readuntil(b"\n")).split(b" ")
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


async def _again(port: int, end_s: float, makers: list[Callable[[], bytes]], width: int) -> Counter[int]:
    """Requests of each kind in turn on ``width`` connections at once, until the end."""
    found: Counter[int] = Counter()

    async def one(number: int) -> None:
        while time.monotonic() < end_s:
            found[await exchange(port, makers[number % len(makers)]())] += 1
            number += width
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(width)))
    return found


async def _held(port: int, end_s: float, datas: list[bytes], drip: bytes = b"") -> Counter[int]:
    """Connections that stay open, send a little every second, and read nothing until the end."""
    found: Counter[int] = Counter()

    async def one(data: bytes) -> None:
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            try:
                writer.write(data)
                while time.monotonic() < end_s and not writer.is_closing():
                    writer.write(drip)
                    await asyncio.sleep(min(1.0, max(end_s - time.monotonic(), 0)))
                async with asyncio.timeout(1):
                    found[await _status(reader)] += 1
            finally:
                writer.transport.abort()

    await asyncio.gather(*(one(data) for data in datas))
    return found


def _document(problem: object) -> bytes:
    return request("/v1/refine/control", json.dumps({"problem": problem}).encode())


def picture(side: int, kind: str = "PNG") -> bytes:
    """A grey square: small on the wire, ``3 * side ** 2`` bytes when it is decoded."""
    made = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(made, kind)
    return made.getvalue()


def plan(obstacles: int, seed: int) -> dict[str, object]:
    """A plan around many discs."""
    pick = random.Random(seed)  # noqa: S311 - a layout
    discs = [[pick.uniform(2, 98), pick.uniform(-40, 40), pick.uniform(0.1, 0.6)] for _ in range(obstacles)]
    return {"kind": "plan", "start": [0, 0], "goal": [100, 0], "obstacles": discs, "robot_radius_m": 0.3}


def qp(n: int) -> dict[str, object]:
    """A dense quadratic program of ``n`` variables and rows."""
    eye = [[float(i == j) for j in range(n)] for i in range(n)]
    return {"kind": "qp", "P": eye, "q": [1.0] * n, "A": eye, "u": [1.0] * n}


async def slow_bodies(port: int, end_s: float) -> Counter[int]:
    """Bodies of 9 MB, a byte a second."""
    head = request("/v1/refine/vision", content="image/png").replace(b"Length: 0", b"Length: 9000000")
    return await _held(port, end_s, [head] * 100, b"\x89")


async def slow_heads(port: int, end_s: float) -> Counter[int]:
    """Headers that never end, a byte a second."""
    return await _held(port, end_s, [b"GET /healthz HTTP/1.1\r\nHost: sage\r\nX-Slow: "] * 200, b"a")


async def large_heads(port: int, end_s: float) -> Counter[int]:
    """Long request lines, one long header, many short ones."""
    return await _again(
        port,
        end_s,
        [
            lambda: b"GET /healthz?" + b"a" * (8 * MIB) + b" HTTP/1.1\r\nHost: sage\r\n\r\n",
            lambda: b"GET /healthz HTTP/1.1\r\nHost: sage\r\nX-Large: " + b"a" * (8 * MIB) + b"\r\n\r\n",
            lambda: b"GET /healthz HTTP/1.1\r\nHost: sage\r\n" + b"X-Many: a\r\n" * 200_000 + b"\r\n",
        ],
        3,
    )


async def large_json(port: int, end_s: float) -> Counter[int]:
    """Many numbers, one long text, deep nesting."""
    numbers = b'{"problem":{"kind":"qp","P":[[' + b"1," * (8 * MIB) + b"1]]}}"
    text = b'{"frame":"' + b"A" * (16 * MIB) + b'"}'
    nested = b'{"problem":' + b"[" * 500_000 + b"]" * 500_000 + b"}"
    return await _again(
        port,
        end_s,
        [
            lambda: request("/v1/refine/control", numbers),
            lambda: request("/v1/refine/vision", text),
            lambda: request("/v1/refine/control", nested),
        ],
        3,
    )


async def odd_numbers(port: int, end_s: float) -> Counter[int]:
    """Values that no field of a problem or budget can have."""
    odd = ("9" * 400, "1e308", "-1e309", "NaN", "Infinity", '"\\ud800"', "[[1],[1,2]]", "null", "{}", "true")
    makers = [
        lambda text=text, key=key: request(
            "/v1/refine/control",
            f'{{"problem":{{"kind":"qp","P":[[1]],"q":[1],"{key}":{text}}},"budget":{{"max_steps":3}}}}'.encode(),
        )
        for text in odd
        for key in ("P", "q", "A", "u", "lb", "eps", "more")
    ]
    limits = [
        lambda text=text: request(
            "/v1/refine/control", f'{{"problem":{text},"budget":{{"atp":{text}}}}}'.encode()
        )
        for text in odd
    ]
    return await _again(port, end_s, makers + limits, 4)


async def image_bombs(port: int, end_s: float) -> Counter[int]:
    """Pictures that are small on the wire: as large as is allowed, larger, and cut off."""
    large, larger, cut = picture(5700), picture(12000), FRAMES[0].read_bytes()[:4000]
    return await _again(
        port,
        end_s,
        [
            lambda: request("/v1/refine/vision?max_steps=1", large, "image/png"),
            lambda: request("/v1/refine/vision", larger, "image/png"),
            lambda: request("/v1/refine/vision", cut, "image/webp"),
        ],
        3,
    )


async def heavy_problems(port: int, end_s: float) -> Counter[int]:
    """The largest problems that are taken."""
    bodies = [_document(plan(2000, 1)), _document(plan(300, 2)), _document(qp(300))]
    return await _again(port, end_s, [lambda body=body: body for body in bodies], 6)


async def unread_replies(port: int, end_s: float) -> Counter[int]:
    """Replies of 32 MB that nobody reads."""
    ask = request(
        "/v1/refine/vision?max_steps=1",
        picture(5700),
        "image/png",
        fields="Accept: application/octet-stream\r\n",
    )
    return await _held(port, end_s, [ask] * 24)


async def answers_for_later(port: int, end_s: float) -> Counter[int]:
    """Answers of 32 MB that nobody fetches."""
    ask = request(
        "/v1/refine/vision?max_steps=1", picture(5700), "image/png", fields="Prefer: respond-async\r\n"
    )
    return await _again(port, end_s, [lambda: ask], 8)


async def worst_forms(port: int, end_s: float) -> Counter[int]:
    """Forms of near boundaries, of many fields, and a scene of 16 large pictures."""
    near = b'--X\r\nContent-Disposition: form-data; name="frame"; filename="a"\r\n\r\n' + b"\r\n--" * (
        2 * MIB
    )
    many = b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 40_000
    kind = "multipart/form-data; boundary=X"
    scene = b"".join(
        b'--X\r\nContent-Disposition: form-data; name="vision"; filename="a"\r\n\r\n'
        + picture(5700)
        + b"\r\n"
        for _ in range(16)
    )
    return await _again(
        port,
        end_s,
        [
            lambda: request("/v1/refine/vision", near + b"\r\n--X--\r\n", kind),
            lambda: request("/v1/refine/vision", many + b"--X--\r\n", kind),
            lambda: request("/v1/scenes", scene + b"--X--\r\n", kind),
        ],
        3,
    )


async def silent_readers(port: int, end_s: float) -> Counter[int]:
    """Event streams and long replies that nobody reads."""
    streams = [request("/v1/telemetry/stream", method="GET")] * 100
    logs = [request("/v1/telemetry?limit=10000", method="GET") * 50] * 20
    return await _held(port, end_s, streams + logs)


async def polls(port: int, end_s: float) -> Counter[int]:
    """One answer for later, asked for again and again while it is refined."""
    name = f"polled-{random.getrandbits(60):x}"
    body = request(
        "/v1/refine/control",
        json.dumps({"problem": plan(300, 3)}).encode(),
        fields=f"Prefer: respond-async\r\nX-Request-Id: {name}\r\n",
    )
    await exchange(port, body)
    return await _again(port, end_s, [lambda: request(f"/v1/refine/{name}", method="GET")], 8)


async def broken_off(port: int, end_s: float) -> Counter[int]:
    """Requests whose caller goes away in the middle of the body, or before the reply."""
    whole = request("/v1/refine/vision", FRAMES[0].read_bytes(), "image/webp")
    pick = random.Random(4)  # noqa: S311 - where to break off
    while time.monotonic() < end_s:
        await exchange(port, whole[: pick.randrange(len(whole))], read=False)
        await exchange(port, whole, read=False, hold_s=pick.uniform(0, 0.05))
    return Counter()


async def bad_framing(port: int, end_s: float) -> Counter[int]:
    """Requests whose length is said wrongly, and what is no HTTP at all."""
    head = "POST /v1/refine/control HTTP/1.1\r\nHost: sage\r\nContent-Type: application/json\r\n"
    lines = (
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        "Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}",
    )
    makers = [lambda line=line: (head + line).encode() for line in lines]
    return await _again(
        port,
        end_s,
        [*makers, lambda: b"\x16\x03\x01\x02\x00\x01", lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        4,
    )


#: In the order of their rotation.
ATTACKS: tuple[Attack, ...] = (
    slow_bodies,
    large_heads,
    odd_numbers,
    image_bombs,
    slow_heads,
    heavy_problems,
    unread_replies,
    large_json,
    answers_for_later,
    worst_forms,
    silent_readers,
    polls,
    broken_off,
    bad_framing,
)
