"""A server for one case alone: configured otherwise, killed and started again, its state in a folder of its own."""

import contextlib
import pathlib

from aiohttp import web

from server import Server, until


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
    """As `Server`, with more patience: a debug build on a busy machine, with a database to recover."""

    START_S = 60
    ANSWER_S = 30

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
