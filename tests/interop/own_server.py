"""A server for one case alone: configured otherwise, killed and started again, its state in a folder of its own."""

import asyncio
import contextlib
import os
import pathlib
import tempfile

import aiohttp
from aiohttp import web

from server import CONFIG, CONNECT_TIMEOUT_S, KEY, SECRET, Server, until

START_S = 60  # a debug build on a busy machine, with a database to recover


@contextlib.asynccontextmanager
async def receiver(take):
    """A webhook receiver, made before its server: `take` answers each POST. Gives the URL."""
    application = web.Application()
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}/hook"
    finally:
        await runner.cleanup()


class OwnServer(Server):
    """As `Server`; `more` is added to its configuration file, `environment` holds `STUBE__…` variables."""

    def __init__(self, more="", **environment):
        super().__init__()
        self.more = more
        self.environment = environment

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="stube-interop-")
        self.state = pathlib.Path(self.folder.name, "state")
        self.state.mkdir()
        self.config = pathlib.Path(self.folder.name, "config.toml")
        text = CONFIG.format(key=KEY, secret=SECRET, connect_timeout_s=CONNECT_TIMEOUT_S, **self.ports)
        self.config.write_text(text + self.more)
        self.log = open(pathlib.Path(self.folder.name, "log"), "w+b")
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
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
        for _ in range(START_S * 10):
            if self.process.returncode is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log_text()}")
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with self.http.get(self.admin + "/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
        self.process.kill()
        raise RuntimeError(f"not ready after {START_S} s:\n{self.log_text()}")

    async def __aexit__(self, kind, *rest):
        if kind is not None:
            print(f"--- the server's log\n{self.log_text()}")
        await super().__aexit__(kind, *rest)

    async def kill(self):
        """SIGKILL, as if the machine had lost its power."""
        self.process.kill()
        await self.process.wait()

    async def text(self, url, **named):
        """What a GET answers, as text."""
        async with self.http.get(url, **named) as answer:
            assert answer.status == 200, f"GET {url}: {answer.status}"
            return await answer.text()

    async def metric(self, name, labels=""):
        """A metric's value. While the database is slow, those that come from it are left out: they are waited for."""
        async def found():
            values = await self.metrics(name)
            return values if labels in values else None

        return (await until(found, 60, f"there is a metric {name}{labels}"))[labels]

    def log_bytes(self):
        """All of its log so far."""
        return pathlib.Path(self.log.name).read_bytes()
