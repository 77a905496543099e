"""The event stream `GET /v1/events`, read by a client that comes back where it stopped."""

import asyncio
import contextlib
import json

import aiohttp

from server import KEY, SECRET


class EventStream:
    """`async with EventStream(server) as stream`: reads from now on, also over a restart of the server."""

    def __init__(self, server):
        self.url = server.url + "/v1/events"
        self.raw = b""  # all bytes that came
        self.bodies = {}  # id to JSON text, in the order of the stream
        self.open = asyncio.Event()

    async def __aenter__(self):
        endless = aiohttp.ClientTimeout(total=None)
        self.http = aiohttp.ClientSession(auth=aiohttp.BasicAuth(KEY, SECRET), timeout=endless)
        self.task = asyncio.ensure_future(self._read())
        await asyncio.wait_for(self.open.wait(), 30)
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.http.close()

    async def _read(self):
        while True:
            headers = {"Last-Event-ID": list(self.bodies)[-1]} if self.bodies else {}
            with contextlib.suppress(aiohttp.ClientError):
                async with self.http.get(self.url, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    self.open.set()
                    await self._follow(answer)
            await asyncio.sleep(0.1)

    async def _follow(self, answer):
        name = None
        async for line in answer.content:
            self.raw += line
            field, _, value = line.decode().rstrip("\r\n").partition(": ")
            if field == "id":
                name = value
            elif field == "data":
                assert name not in self.bodies, f"{name} came twice"
                assert json.loads(value)["id"] == name, f"{name}: {value}"
                self.bodies[name] = value

    def of(self, room):
        """The events of the rooms whose name begins so, as `(name of the room, kind)`."""
        found = [json.loads(body) for body in self.bodies.values()]
        return [(event["room"]["name"], event["event"]) for event in found if event["room"]["name"].startswith(room)]
