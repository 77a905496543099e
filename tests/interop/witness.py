"""What clients know of their sessions: a proxy before the HTTP API that notes the times, and `stube load` behind it.

A session's media cannot connect before its client has the answer, and has connected before the API calls it active: two
bounds, by this process's monotonic clock, that hold however slow anything is. Its end lies between the client's DELETE
and the answer to it, or is the server's own.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import time

import aiohttp
from aiohttp import web

LOOK_S = 0.02  # between two looks at who is active
FORWARDED = ("Authorization", "Content-Type", "If-Match", "Idempotency-Key")
RETURNED = ("Content-Type", "Location", "ETag", "Link")

# One in four speaks, and the others send a packet each 400 ms: some 30 kbit/s a room.
LIGHT = ("--no-video", "--no-data-channel", "--talkers", "0.25", "--join-rate", "100", "--poll-us", "5000")


@dataclasses.dataclass
class Stay:
    """One session, in seconds of the monotonic clock. None: not known to have happened."""

    tenant: str
    room: str
    identity: str
    answered: float
    seen: float | None = None  # active by then
    leaving: float | None = None  # its end was asked for
    left: float | None = None  # and confirmed

    @property
    def key(self):
        return self.tenant, self.room, self.identity


class Witness:
    """`async with Witness(server) as witness`; clients use `witness.url`."""

    def __init__(self, server):
        self.server = server
        self.stays = {}
        self.by_path = {}

    async def __aenter__(self):
        self.upstream = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_):
        self.looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.looking
        await self.runner.cleanup()
        await self.upstream.close()

    async def _forward(self, request):
        stay = self.by_path.get(request.path) if request.method == "DELETE" else None
        if stay:
            stay.leaving = time.monotonic()
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        try:
            url, sent = self.server.url + request.path_qs, await request.read()
            async with self.upstream.request(request.method, url, data=sent, headers=headers) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return web.Response(status=502)
        if stay and answer.status == 200:
            stay.left = time.monotonic()
        if request.method == "POST" and request.path == "/v1/sessions" and answer.status == 201:
            self._note_join(request.headers["Authorization"], answer.headers["Location"])
        returned = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
        return web.Response(status=answer.status, body=body, headers=returned)

    def _note_join(self, authorization, location):
        payload = authorization.split()[1].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        stay = Stay(claims["iss"], claims["video"]["room"], claims["sub"], time.monotonic())
        assert stay.key not in self.stays, f"joined twice: {stay.key}"
        self.stays[stay.key] = self.by_path[location] = stay

    async def _look(self):
        """Notes who has become active."""
        while True:
            unseen = {stay.key[:2] for stay in self.stays.values() if stay.seen is None and stay.leaving is None}
            for tenant, room in unseen:
                # Between a kill and the next start nobody answers, and the rooms are gone then.
                with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                    path = f"/v1/rooms/{room}/participants?limit=1000"
                    status, body = await self.server.ask(tenant, "GET", path)
                    for one in body["participants"] if status == 200 else []:
                        stay = self.stays.get((tenant, room, one["identity"]))
                        if one["state"] == "active" and stay and stay.seen is None and stay.leaving is None:
                            stay.seen = time.monotonic()
            await asyncio.sleep(LOOK_S)

    def live(self):
        return sum(stay.seen is not None and stay.leaving is None for stay in self.stays.values())

    def forget(self):
        """Another round begins; what was noted."""
        stays, self.stays, self.by_path = self.stays, {}, {}
        return stays


class Load:
    """`stube load` for one tenant, through the witness."""

    def __init__(self, witness, tenant):
        self.witness, self.tenant = witness, tenant

    async def start(self, rooms, participants, *options, duration=3600):
        self.process = await asyncio.create_subprocess_exec(
            os.environ["STUBE_BIN"], "load", "--config", str(self.witness.server.config), "--url", self.witness.url,
            "--key", self.tenant, "--rooms", str(rooms), "--participants", str(participants),
            "--duration", str(duration), "--json", *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        return self

    async def report(self, end=True):
        """Its figures; `end` tells it that its time is up."""
        if end:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode == 0, f"stube load ended with {self.process.returncode}: {err.decode()[-2000:]}"
        return json.loads(out)

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


async def settled(witness, count, loads, seconds=30):
    """Waits until so many sessions live."""
    deadline = time.monotonic() + seconds
    while witness.live() < count:
        for load in loads:
            if load.process.returncode is not None:
                raise AssertionError(f"stube load ended: {(await load.process.communicate())[1].decode()}")
        assert time.monotonic() < deadline, f"{witness.live()} of {count} sessions live after {seconds} s"
        await asyncio.sleep(0.02)
