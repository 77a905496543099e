"""The server under test: the real binary on free ports, and its HTTP API as a map service uses it."""

import asyncio
import contextlib
import os
import pathlib
import re
import socket
import tempfile

import aiohttp

KEY, SECRET = "devkey", "devsecret-devsecret-devsecret-dev"
CONNECT_TIMEOUT_S = 6  # short, so that the failing case is quick; FFmpeg gives up after 5 s

CONFIG = """
[keys]
{key} = "{secret}"
[http]
listen = "127.0.0.1:{http}"
[admin]
listen = "127.0.0.1:{admin}"
[media]
udp_listen = "0.0.0.0:{udp}"
tcp_listen = "0.0.0.0:{tcp}"
connect_timeout_s = {connect_timeout_s}
[shard]
count = 2
"""


def free_ports():
    """Ports for HTTP, admin and ICE-TCP, and the first of two neighbouring UDP ports."""
    with contextlib.ExitStack() as held:
        def bind(kind, port=0):
            taken = held.enter_context(socket.socket(socket.AF_INET, kind))
            taken.bind(("0.0.0.0", port))
            return taken.getsockname()[1]

        tcp = [bind(socket.SOCK_STREAM) for _ in range(3)]
        while True:
            first = bind(socket.SOCK_DGRAM)
            with contextlib.suppress(OSError, OverflowError):
                bind(socket.SOCK_DGRAM, first + 1)
                return dict(zip(("http", "admin", "tcp"), tcp, strict=True), udp=first)


class Server:
    """`async with Server() as server` runs it; leaving stops it by SIGTERM and expects exit status 0."""

    START_S = 30
    ANSWER_S = 10

    def __init__(self, more="", **environment):
        """`more` is added to its configuration file, `environment` holds `STUBE__…` variables."""
        self.more = more
        self.environment = environment
        self.ports = free_ports()
        self.url = f"http://127.0.0.1:{self.ports['http']}"
        self.admin = f"http://127.0.0.1:{self.ports['admin']}"

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="stube-interop-")
        self.state = pathlib.Path(self.folder.name, "state")
        self.state.mkdir()
        self.config = pathlib.Path(self.folder.name, "config.toml")
        text = CONFIG.format(key=KEY, secret=SECRET, connect_timeout_s=CONNECT_TIMEOUT_S, **self.ports)
        self.config.write_text(text + self.more)
        self.log = open(pathlib.Path(self.folder.name, "log"), "w+b")
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.ANSWER_S))
        try:
            await self.run()
        except BaseException:
            await self.http.close()
            raise
        return self

    async def run(self):
        """Starts the process, for the first time or once more, on the same ports and state."""
        environment = {**os.environ, "STATE_DIRECTORY": str(self.state), **self.environment}
        self.process = await asyncio.create_subprocess_exec(
            os.environ["STUBE_BIN"], "serve", "--config", str(self.config), env=environment, cwd=self.folder.name,
            stdin=asyncio.subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(self.START_S * 10):
            if self.process.returncode is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log_text()}")
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with self.http.get(self.admin + "/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
        self.process.kill()
        raise RuntimeError(f"not ready after {self.START_S} s:\n{self.log_text()}")

    async def __aexit__(self, *_):
        await self.http.close()
        alive = self.process.returncode is None
        if alive:
            self.process.terminate()
        try:
            status = await asyncio.wait_for(self.process.wait(), 10)
        except asyncio.TimeoutError:
            self.process.kill()
            status = "none within 10 s of SIGTERM"
        if not alive or status != 0:
            print(self.log_text())
        self.log.close()
        self.folder.cleanup()
        if not alive or status != 0:
            raise RuntimeError(f"the server's exit status: {status}")

    def log_text(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")[-8000:]

    async def api(self, method, path, body=None, expect=(200,)):
        """A call with the key's secret; the answer's JSON."""
        auth = aiohttp.BasicAuth(KEY, SECRET)
        async with self.http.request(method, self.url + path, json=body, auth=auth) as answer:
            assert answer.status in expect, f"{method} {path}: {answer.status} {await answer.text()}"
            return await answer.json(content_type=None) if answer.status != 204 else None

    async def open_room(self, name):
        await self.api("POST", "/v1/rooms", {"name": name}, expect=(201,))

    async def token(self, room, identity):
        answer = await self.api("POST", f"/v1/rooms/{room}/tokens", {"identity": identity}, expect=(201,))
        return answer["token"]

    async def participants(self, room):
        """Identity to state."""
        listed = (await self.api("GET", f"/v1/rooms/{room}/participants"))["participants"]
        return {participant["identity"]: participant["state"] for participant in listed}

    async def metrics(self, name):
        """Label text to value."""
        async with self.http.get(self.admin + "/metrics") as answer:
            text = await answer.text()
        return {labels or "": float(value) for labels, value in re.findall(rf"^{name}({{.*?}})? (\S+)$", text, re.M)}

    async def post_offer(self, path, token, sdp):
        """The answer's SDP and the session's URL."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        async with self.http.post(self.url + path, data=sdp, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 201, f"POST {path}: {answer.status} {text}"
            assert answer.content_type == "application/sdp", answer.content_type
            assert answer.headers.get("ETag", "").startswith('"'), "no strong ETag"
            location = answer.headers["Location"]
        return text, location if location.startswith("http") else self.url + location

    async def delete(self, session, expect=200):
        async with self.http.delete(session) as answer:
            assert answer.status == expect, f"DELETE session: {answer.status} {await answer.text()}"


async def until(condition, seconds, what):
    """Polls an async condition; its first true value."""
    for _ in range(int(seconds * 10)):
        if value := await condition():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")
