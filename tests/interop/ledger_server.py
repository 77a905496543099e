"""A server whose ledger outlives it: started, killed and started again with one state directory and the same ports."""

import asyncio
import base64
import contextlib
import os
import pathlib
import subprocess
import tempfile
import time

import aiohttp

from server import Server

CHECKPOINT_S = 1  # the shortest there is, so that rounds are quick
STOP_LIMIT_S = 10  # docs/operations.md: a stop takes less than eight seconds, whatever hangs
START_LIMIT_S = 30

TENANTS = {name: f"{name}-secret-of-at-least-thirty-two-bytes" for name in ("alpha", "beta")}

CONFIG = """
[keys]
alpha = "{alpha}"
beta = "{beta}"
[http]
listen = "127.0.0.1:{http}"
[admin]
listen = "127.0.0.1:{admin}"
[media]
udp_listen = "127.0.0.1:{udp}"
tcp_listen = "127.0.0.1:{tcp}"
[shard]
count = 2
[ledger]
url = "{url}"
checkpoint_s = {checkpoint_s}
node = "under-test"
{more}
"""


def basic(tenant):
    """A tenant's HTTP Basic credentials."""
    return "Basic " + base64.b64encode(f"{tenant}:{TENANTS[tenant]}".encode()).decode()


class NotReady(RuntimeError):
    """The server ended, or did not get ready: its exit status and what it said."""

    def __init__(self, status, said):
        super().__init__(f"exit status {status}: {said}")
        self.status, self.said = status, said


class LedgerServer(Server):
    """`async with LedgerServer(directory) as server` starts it; leaving stops it if it runs."""

    def __init__(self, state, url="sqlite://stube.db", more=""):
        super().__init__()
        self.state = pathlib.Path(state)
        self.database = url
        self.more = more
        self.process = None

    async def __aenter__(self):
        await self.prepare()
        try:
            await self.start()
        except BaseException:
            await self.discard()
            raise
        return self

    async def __aexit__(self, failure, *_):
        try:
            if self.runs():
                status = await self.stop()
                assert failure or status == 0, f"exit status {status} after SIGTERM:\n{self.log_text()}"
        finally:
            await self.discard()

    async def prepare(self):
        """Writes the configuration; starts nothing."""
        self.folder = tempfile.TemporaryDirectory(prefix="stube-ledger-")
        self.config = pathlib.Path(self.folder.name, "config.toml")
        values = {"url": self.database, "checkpoint_s": CHECKPOINT_S, "more": self.more, **TENANTS, **self.ports}
        self.config.write_text(CONFIG.format(**values))
        self.log = open(pathlib.Path(self.folder.name, "log"), "a+b")
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))

    async def discard(self):
        if self.runs():
            self.process.kill()
            await self.process.wait()
        await self.http.close()
        self.log.close()
        self.folder.cleanup()

    def runs(self):
        return self.process is not None and self.process.returncode is None

    async def launch(self):
        """Starts the process and waits for nothing."""
        self.process = await asyncio.create_subprocess_exec(*self.command(), **self.surroundings())

    def command(self):
        return os.environ["STUBE_BIN"], "serve", "--config", str(self.config)

    def surroundings(self):
        environment = {**os.environ, "STATE_DIRECTORY": str(self.state)}
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        return {"env": environment, "cwd": self.folder.name, **streams}

    def launch_and_kill(self, seconds):
        """Starts it and kills it so soon after. Blocks: a recovery takes milliseconds, as does asyncio itself."""
        process = subprocess.Popen(self.command(), **self.surroundings())
        time.sleep(seconds)
        process.kill()
        process.wait()

    async def start(self):
        """Starts it and waits until it is ready; the seconds that took."""
        self.log.flush()
        logged, began = self.log.seek(0, os.SEEK_END), time.monotonic()
        await self.launch()
        while time.monotonic() < began + START_LIMIT_S:
            if not self.runs():
                raise NotReady(self.process.returncode, self.log_since(logged))
            if (await self.readiness())[0] == 200:
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        raise NotReady(None, self.log_since(logged))

    async def kill(self, warning_s=None):
        """SIGKILL, so long after a SIGTERM if there is to be one: the moments between which it died."""
        before = time.monotonic()
        if warning_s is not None:
            self.process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.process.wait(), warning_s)
        if self.runs():
            self.process.kill()
        await self.process.wait()
        return before, time.monotonic()

    async def stop(self):
        """SIGTERM: the exit status."""
        self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), STOP_LIMIT_S)
        except asyncio.TimeoutError:
            await self.kill()
            return f"none within {STOP_LIMIT_S} s of SIGTERM"

    def log_since(self, place):
        self.log.flush()
        return pathlib.Path(self.log.name).read_bytes()[place:].decode(errors="replace")

    async def readiness(self):
        """Status and body of /readyz; 0 while nobody answers."""
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            async with self.http.get(self.admin + "/readyz") as answer:
                return answer.status, (await answer.text()).strip()
        return 0, ""

    async def figure(self, name):
        """The sum over a metric's labels."""
        return sum((await self.metrics(name)).values())

    async def ask(self, tenant, method, path, body=None, token=None, headers=None, data=None):
        """Status and body (JSON if it is) of a call by a tenant's key, or with a token."""
        sent = {"Authorization": f"Bearer {token}" if token else basic(tenant), **(headers or {})}
        async with self.http.request(method, self.url + path, json=body, data=data, headers=sent) as answer:
            is_json = "json" in answer.content_type
            return answer.status, await (answer.json(content_type=None) if is_json else answer.text())

    async def get(self, tenant, path):
        status, body = await self.ask(tenant, "GET", path)
        assert status == 200, f"GET {path}: {status} {body}"
        return body

    async def pages(self, tenant, path, key):
        """All of a list."""
        found, cursor = [], ""
        while cursor is not None:
            body = await self.get(tenant, f"{path}?limit=1000" + (f"&cursor={cursor}" if cursor else ""))
            found += body[key]
            cursor = body["next_cursor"]
        return found
