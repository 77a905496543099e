"""Joins a second that the control plane admits: offers of a real browser, posted over a few connections at a time.

Measures, and checks nothing but the answers; not part of CI.

    STUBE_BIN=target/release/stube .venv/bin/python tests/interop/joins.py [--runs 5] [--joins 2000] [--connections 16]

*admitted* posts offers alone. *cycles* ends each session as soon as it is answered, so that each join is one more event
in the ledger, and with `--webhooks` one more delivery.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

from isolation import OFFER, OURS, sign
from ledger_server import LedgerServer

ROOM_SIZE = 100
WEBHOOK = '[[webhook]]\nurl = "http://127.0.0.1:{port}/events"\nsecret = "a-secret-of-at-least-24-bytes"\n'


def receive(connection):
    """A webhook's receiver in a process of its own: 204 to everything; tells how often when asked."""
    count = 0

    async def answer(reader, writer):
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await body(reader, await reader.readuntil(b"\r\n\r\n"))
                count += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        connection.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(connection.recv):
            connection.send(count)

    asyncio.run(serve())


async def body(reader, head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line[15:]))
    return b""


class Post:
    """One connection that is kept."""

    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def send(self, request, expected):
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        said = await body(self.reader, head)
        assert head.startswith(b"HTTP/1.1 %d" % expected), head + said
        return head


def join_request(room, identity, offer):
    token = sign(OURS, {"sub": identity, "video": {"room": room, "roomJoin": True}})
    return (
        f"POST /v1/sessions HTTP/1.1\r\nHost: stube\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(offer)}\r\n\r\n{offer}").encode()


def leave_request(head):
    location = next(line[10:] for line in head.split(b"\r\n") if line.lower().startswith(b"location: "))
    return b"DELETE %s HTTP/1.1\r\nHost: stube\r\n\r\n" % location


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(server, number, options, cycles):
    """One run: joins a second, and the server's and this tool's CPU time for each."""
    offer = OFFER.read_bytes().decode()
    rooms = [f"run-{number}-{room}" for room in range(-(-options.joins // ROOM_SIZE))]
    for room in rooms:
        assert (await server.ask(OURS, "POST", "/v1/rooms", {"name": room, "max_participants": ROOM_SIZE}))[0] == 201
    requests = [join_request(rooms[n % len(rooms)], f"p{n}", offer) for n in range(options.joins)]
    posts = [await Post().open(server.ports["http"]) for _ in range(options.connections)]

    async def work(post):
        while requests:
            head = await post.send(requests.pop(), 201)
            if cycles:
                await post.send(leave_request(head), 200)

    before = cpu_s(server.process.pid), resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    await asyncio.gather(*(work(post) for post in posts))
    seconds = time.monotonic() - began
    after = cpu_s(server.process.pid), resource.getrusage(resource.RUSAGE_SELF)
    for post in posts:
        post.writer.close()
    for room in rooms:
        assert (await server.ask(OURS, "DELETE", f"/v1/rooms/{room}"))[0] == 204
    own = (after[1].ru_utime + after[1].ru_stime - before[1].ru_utime - before[1].ru_stime) / seconds
    return options.joins / seconds, (after[0] - before[0]) / options.joins * 1e3, (after[0] - before[0]) / seconds, own


async def drained(server):
    """Waits until what a run left behind is written and delivered, so that the next one does not pay for it."""
    for _ in range(240):
        await asyncio.sleep(0.5)
        waiting = [await server.figure(name) for name in ("stube_ledger_rows_waiting", "stube_webhook_outbox_rows")]
        if not any(waiting):
            return
    print(f"    after two minutes {waiting[0]:.0f} rows and {waiting[1]:.0f} deliveries still wait")


async def measure(options, cycles, webhooks):
    ours, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
    receiver.start()
    more = WEBHOOK.format(port=ours.recv()) if webhooks else ""
    with tempfile.TemporaryDirectory(prefix="stube-joins-") as state:
        async with LedgerServer(state, more=more) as server:
            runs = []
            for number in range(options.runs + 1):
                runs.append(await run(server, number, options, cycles))
                await drained(server)
            ours.send(True)
            delivered = ours.recv()
    ours.send(False)
    receiver.join(5)
    middle = [statistics.median(column) for column in zip(*runs[1:], strict=True)]  # the first one warms up
    print(
        f"{'cycles' if cycles else 'admitted'}, {'with' if webhooks else 'without'} webhooks: "
        f"median {middle[0]:.0f}/s of {options.runs} runs ({', '.join(f'{one[0]:.0f}' for one in runs[1:])}); "
        f"{middle[1]:.2f} ms of CPU each, server {middle[2] * 100:.0f} %, this tool {middle[3] * 100:.0f} % of a core"
        + (f"; {delivered} events delivered" if webhooks else ""), flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--joins", type=int, default=2000)
    options.add_argument("--connections", type=int, default=16)
    options = options.parse_args()
    for cycles in (False, True):
        for webhooks in (False, True):
            asyncio.run(measure(options, cycles, webhooks))


if __name__ == "__main__":
    sys.exit(main())
