"""docs/examples/ as somebody who copies them runs them: curl, Node and Python, against the real binary with real media."""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

from aiortc_peer import publish
from own_server import OwnServer
from server import until

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs/examples"
SECRET = "whsec_" + base64.b64encode(b"of the example's webhook receiver").decode()


class Example:
    """A program of docs/examples/ that serves until it is stopped; its first line ends with where."""

    def __init__(self, *command, **environment):
        self.command, self.environment = command, {**os.environ, "PORT": "0", **environment}
        self.lines = []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command, env=self.environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)
        self.first = (await asyncio.wait_for(self.process.stdout.readline(), 20)).decode().strip()
        assert self.first, f"{self.command} said nothing"
        self.reading = asyncio.ensure_future(self.read())
        return self

    async def read(self):
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode().strip())

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.wait()
        await self.reading


async def output(*command, **environment):
    """What an example prints that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, f"{command}: {process.returncode} {out.decode()} {err.decode()}"
    return out.decode()


async def joins(server, room, identity, token):
    """The token lets this identity into this room, with media."""
    peer, session = await publish(server, token, "vp8")
    try:
        assert await server.participants(room) == {identity: "active"}
    finally:
        await server.delete(session)
        await peer.close()


async def by_curl(server, folder):
    command = "sh", f"{folder}/backend.sh", "curl room/ä", "ada"
    said = json.loads(await output(*command, STUBE_URL=server.url))
    assert said["room"]["session_url"] == f"{server.url}/v1/sessions", said
    await joins(server, "curl%20room%2F%C3%A4", "ada", said["token"]["token"])
    wrong = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "STUBE_URL": server.url, "STUBE_SECRET": "wrong"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await wrong.communicate()
    assert wrong.returncode != 0 and not out and b'"invalid_credentials"' in err, f"a wrong secret: {out} {err}"


async def by_backend(server, *command):
    """The backend gives a browser what it needs, twice for one room, and serves the page."""
    async with Example(*command, STUBE_URL=server.url) as backend:
        url, room = backend.first, f"{pathlib.Path(command[-1]).suffix[1:]} room"
        for identity in ("ada", "bob"):
            query = {"room": room, "identity": identity}
            async with server.http.get(f"{url}join", params=query) as answer:
                assert answer.status == 200, await answer.text()
                said = await answer.json()
            assert said["session_url"] == f"{server.url}/v1/sessions", said
            await joins(server, room.replace(" ", "%20"), identity, said["token"])
        async with server.http.get(url) as page:
            assert "RTCPeerConnection" in await page.text()
        for wrong, status, why in (
            ({}, 400, "expected /join?room="),
            ({"room": room}, 400, "expected /join?room="),
            ({"room": "", "identity": "ada"}, 400, "expected /join?room="),
            ({"room": "a" * 999, "identity": "ada"}, 502, "invalid_request"),
        ):
            async with server.http.get(f"{url}join", params=wrong) as answer:
                assert answer.status == status and why in (await answer.json())["error"], await answer.text()


async def by_ten_lines(server, *command):
    room = f"ten {pathlib.Path(command[-1]).suffix[1:]}"
    said = json.loads(await output(*command, room, "ada", STUBE_URL=server.url))
    assert said["session_url"] == f"{server.url}/v1/sessions", said
    await joins(server, room.replace(" ", "%20"), "ada", said["token"])


async def by_sdk(server, folder):
    await server.open_room("sdk-room")
    token = (await output("node", f"{folder}/token.mjs", "sdk-room", "eve")).strip()
    await joins(server, "sdk-room", "eve", token)


LEFT = [
    ("curl room/ä", "ada"), ("mjs room", "ada"), ("mjs room", "bob"), ("py room", "ada"), ("py room", "bob"),
    ("sdk-room", "eve"), ("ten mjs", "ada"), ("ten py", "ada")]  # fmt: skip


async def examples():
    with tempfile.TemporaryDirectory(prefix="stube-examples-") as folder:
        # As after `npm install` beside them.
        shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
        os.symlink(HERE / "node_modules", f"{folder}/node_modules")
        async with Example("node", f"{folder}/webhook.mjs", WEBHOOK_SECRET=SECRET) as receiver:
            port = receiver.first.split()[-1]
            hook = f'[[webhook]]\nurl = "http://127.0.0.1:{port}/stube"\nsecret = "{SECRET}"\n'
            async with OwnServer(hook) as server:
                await by_curl(server, folder)
                await by_backend(server, "node", f"{folder}/backend.mjs")
                await by_backend(server, sys.executable, f"{folder}/backend.py")
                await by_sdk(server, folder)
                await by_ten_lines(server, "node", f"{folder}/ten-lines.mjs")
                await by_ten_lines(server, sys.executable, f"{folder}/ten-lines.py")
                async with server.http.post(f"http://127.0.0.1:{port}/stube", data=b"{}") as answer:
                    assert answer.status == 401, f"an unsigned webhook: {answer.status}"

                async def told():
                    said = "\n".join(receiver.lines)
                    left = re.findall(r"^participant_left (.+) (\w+) \d+ ms$", said, re.M)
                    return sorted(left) == LEFT and said.count("room_started") == 6 and said.count("track_published") == 16

                await until(told, 10, f"the receiver was told of all: {receiver.lines}")
