"""A TCP proxy that does what networks and sick servers do."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self


class Proxy:
    """Passes 127.0.0.1:`port` on to 127.0.0.1:`to`, in a thread of its own, while in its `with`."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._streams: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def delay(self, seconds: float) -> None:
        """What the server sends comes so much later from now on."""
        self._delay_s = seconds

    def black_hole(self) -> None:
        """Connections stay and come about, and nothing passes, either way, until `heal`."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        self._delay_s = 0.0
        self._loop.call_soon_threadsafe(self._open.set)

    def reset(self) -> None:
        """Every connection is reset."""
        self._run(self._reset())

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._reset()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in self._streams:
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._streams |= {writer, server_writer}
        for way in (self._forth(reader, server_writer), self._back(server_reader, writer)):
            task = self._loop.create_task(way)
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
        self._end(writer)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece after its own delay, so that a slow way is as wide as a fast one."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def pass_on() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(due - self._loop.time(), 0))
                await self._open.wait()
                if not data:
                    return
                writer.write(data)

        passing = self._loop.create_task(pass_on())
        try:
            while data := await reader.read(1 << 16):
                pieces.put_nowait((self._loop.time() + self._delay_s, data))
            pieces.put_nowait((0, b""))
            await passing
        except OSError:
            pass
        finally:
            passing.cancel()
            self._end(writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._streams.discard(writer)
        writer.close()
