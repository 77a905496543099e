"""A call through an installed server that runs as it was shipped: aiortc publishes by WHIP, another plays by WHEP."""

import asyncio
import pathlib
import sys
import time

import aiohttp

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "interop"))
from cases import aiortc_to_aiortc  # noqa: E402
from server import Server  # noqa: E402


class Installed(Server):
    """systemd started it, and stops it. It has the ports and the key of `config.toml`."""

    def __init__(self):
        self.url, self.admin = "http://127.0.0.1:7880", "http://127.0.0.1:6789"

    async def __aenter__(self):
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.ANSWER_S))
        return self

    async def __aexit__(self, *_):
        await self.http.close()


async def main():
    began = time.monotonic()
    async with Installed() as server:
        await server.open_room("package")
        await aiortc_to_aiortc(server, "package", "vp8")
    print(f"published, played and compared in {time.monotonic() - began:.1f} s")


asyncio.run(main())
