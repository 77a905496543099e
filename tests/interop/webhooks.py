"""Webhooks to receivers that fail, hang, are busy, are gone or die, from a server that is killed in mid-way.

One server tells six receivers of the same calls, and each misbehaves in its own way (receiver.mjs). In the end all have
every event, in order, signed for two libraries that know nothing of this server; `GET /v1/events` says what there was.
"""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import signal
from collections import Counter

from events import EventStream
from own_server import OwnServer
from server import KEY, SECRET, until

HERE = pathlib.Path(__file__).parent
PLAIN_SECRET = "a plain secret, of the map service"
PATIENCE_S = 120  # the second failure of a room waits for 30 s, and on a slow machine there is one
TIME_LIMIT_S = 10  # that an answer has, see docs/protocol.md
BUSY_S = 3  # the Retry-After of the busy one

# Events of a room in which two participants with camera and microphone meet, leave, and which is then deleted.
CALL = Counter(room_started=1, participant_joined=2, track_published=4, track_unpublished=4, participant_left=2,
               room_finished=1)  # fmt: skip
# The same until the server is killed.
CUT_CALL = Counter(room_started=1, participant_joined=2, track_published=4)
# And when it is there again: it says who has left. The room goes on.
CRASHED_CALL = CUT_CALL + Counter(participant_left=2)
EMPTY_ROOM = Counter(room_started=1, room_finished=1)


class Receiver:
    """One process of receiver.mjs; `manners` is a path to how it behaves."""

    def __init__(self, folder, name, manners):
        self.journal = pathlib.Path(folder, f"{name}.jsonl")
        self.port = 0
        self.hooks = {}
        for number, (path, manner) in enumerate(manners.items(), 1):
            encoded = "whsec_" + base64.b64encode(bytes([number]) * 32).decode()
            secret, raw = (PLAIN_SECRET, True) if manner == "busy" else (encoded, False)
            self.hooks[path] = {"secret": secret, "raw": raw, "manner": manner}

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            "node", str(HERE / "receiver.mjs"), str(self.journal),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        line = json.dumps({"port": self.port, "apiKey": KEY, "apiSecret": SECRET, "hooks": self.hooks})
        self.process.stdin.write(line.encode() + b"\n")
        said = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert said, "the receiver did not start; is tests/interop/node_modules there?"
        self.port = int(said)

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def sections(self):
        """The sections of the configuration that send events here."""
        section = '[[webhook]]\nurl = "http://127.0.0.1:{}{}"\nsecret = "{}"\n'
        return "".join(section.format(self.port, path, hook["secret"]) for path, hook in self.hooks.items())

    def entries(self):
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self.journal.read_text().split("\n")[:-1]]
        return []

    def of(self, path):
        """The requests that came to a path."""
        return [entry for entry in self.entries() if entry["path"] == path and "body" in entry]


@contextlib.asynccontextmanager
async def load(server, *options):
    """`stube load` with calls of two; waits for its end unless the block ends it."""
    process = await asyncio.create_subprocess_exec(
        os.environ["STUBE_BIN"], "load", "--config", str(server.config), "--url", server.url, "--key", KEY,
        "--participants", "2", "--video-kbps", "100", "--warmup", "1", *options,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        yield process
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode in (0, -9), f"stube load ended with {process.returncode}: {output.decode()}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def first_part(server, stream, receivers):
    """Calls, while each receiver misbehaves for the first time; ends with a running call and a backlog."""
    async with load(server, "--rooms", "2", "--duration", "1"):
        pass
    await asyncio.wait_for(receivers["dying"].process.wait(), 60)
    await receivers["dying"].start()

    async def told_of_running_call():
        return Counter(kind for _, kind in stream.of("load")) == CALL + CALL + CUT_CALL

    running = load(server, "--rooms", "1", "--duration", "600")
    async with running as process:
        await until(told_of_running_call, 60, "the stream has the events of two calls, and of one that runs")
        # The busy one's rest is kept in memory, so it has to be over before the server loses its memory.
        await until(lambda: after_rest(receivers), 30, "the busy receiver was asked again")
        waiting = await server.metric("stube_webhook_outbox_rows")
        assert waiting > 0, "nothing waits, so this proves nothing"
        attempts = await server.metrics("stube_webhook_attempts_total")
        assert attempts['{result="gone"}'] == 1, f"one webhook answered 410 once, and the metrics say {attempts}"
        assert len(receivers["rest"].of("/gone")) == 1, "a receiver that answered 410 got more"
        log = server.log_bytes().decode()
        assert "a webhook wants no more events and gets none" in log and "it answered 410" in log, log
        process.kill()
        await server.kill()
    print(f"    killed the server with {waiting:.0f} deliveries in its outbox")


async def after_rest(receivers):
    return len(receivers["rest"].of("/busy")) > 1


async def second_part(server):
    """After the restart: one more call, and a room without one."""
    await server.open_room("empty")
    await server.api("DELETE", "/v1/rooms/empty", expect=(204,))
    async with load(server, "--rooms", "1", "--duration", "1"):
        pass


def check_signatures(path, requests):
    """Both libraries took every delivery, and neither takes it with one bit changed."""
    for request in requests:
        where = f"{path}, request {request['number']}"
        assert request["verified"] == {"standardwebhooks": "ok", "livekit": "ok"}, f"{where}: {request['verified']}"
        assert "ok" not in request["forged"].values(), f"{where}: forged, and taken: {request['forged']}"
        assert request["method"] == "POST"
        assert request["headers"]["content-type"] == "application/webhook+json", request["headers"]
        assert request["id"] == json.loads(request["body"])["id"], where


def check_order(path, requests):
    """Each room's events from the first on, one after the other; repetitions come before the next, and are the same."""
    bodies, last = {}, {}
    for request in requests:
        room, seq, name = request["room"], request["seq"], request["id"]
        before = last.get(room, 0)
        assert seq in (before, before + 1), f"{path}: event {seq} of {room} came after event {before}"
        assert bodies.setdefault((room, seq), (name, request["body"])) == (name, request["body"]), \
            f"{path}: event {seq} of {room} came with another id or body"
        last[room] = seq


def check_whole(path, requests, stream):
    """Every event of the stream, and no other."""
    came = {request["id"]: request["body"] for request in requests}
    lost = [body for name, body in stream.bodies.items() if name not in came]
    assert not lost, f"{path} lacks {len(lost)} of {len(stream.bodies)} events: {lost[:3]}"
    assert came.keys() == stream.bodies.keys(), f"{path} got events that the stream does not have"
    differ = [name for name, body in came.items() if json.loads(body) != json.loads(stream.bodies[name])]
    assert not differ, f"{path} and the stream differ in {differ}"


def check_stream(stream):
    """What is known to have happened; nothing of it is lost, though the server was killed."""
    kinds = {}
    for room, kind in stream.of(""):
        kinds.setdefault(room, Counter())[kind] += 1
    whole = sorted((room.split("-")[0], sorted(count.items())) for room, count in kinds.items())
    calls = [("load", sorted(count.items())) for count in (CALL, CALL, CALL, CRASHED_CALL)]
    assert whole == sorted([("empty", sorted(EMPTY_ROOM.items())), *calls]), whole


def check_manners(receivers):
    """Each misbehaved as it should have, and the server took it as docs/protocol.md says."""
    rest = receivers["rest"]
    requests = {path: rest.of(path) for path in rest.hooks}
    first, second = requests["/busy"][:2]
    waited_s = (second["at"] - first["at"]) / 1000
    assert waited_s >= BUSY_S, f"asked to wait for {BUSY_S} s it came again after {waited_s:.1f} s"
    # One request or more until the server was killed, and one after that, which had its whole time.
    hung_s = [entry["closedAfterMs"] / 1000 for entry in rest.entries()
              if entry["path"] == "/hanging" and "closedAfterMs" in entry]  # fmt: skip
    assert len(hung_s) >= 2 and TIME_LIMIT_S - 0.5 < hung_s[-1] < TIME_LIMIT_S + 10, \
        f"an answer has {TIME_LIMIT_S} s, and the server waited for {hung_s} s"
    repeated = Counter(request["id"] for request in requests["/hanging"])
    assert repeated[requests["/hanging"][0]["id"]] >= 2, "what was not answered did not come again"
    firsts = [number for request, number in Counter((r["room"], r["seq"]) for r in requests["/failing"]).items()
              if request[1] == 1]  # fmt: skip
    assert len(firsts) == 5 and min(firsts) >= 2, f"first events of rooms came {firsts} times to the failing one"
    assert not rest.of("/trap"), "a redirect was followed"
    dying = receivers["dying"].of("/dying")
    assert Counter(request["id"] for request in dying)[dying[2]["id"]] >= 2, "what it died of did not come again"
    gone = requests["/gone"]
    assert len(gone) > 1, "a webhook that answered 410 is to get events again after the next start; it did not"
    failed = [entry for one in receivers.values() for entry in one.entries() if "failed" in entry]
    assert not failed, failed


async def misbehaving_receivers(folder):
    """The case: see above."""
    manners = ("well", "failing", "hanging", "busy", "gone")
    rest = Receiver(folder, "rest", {f"/{manner}": manner for manner in manners})
    receivers = {"rest": rest, "dying": Receiver(folder, "dying", {"/dying": "dying"})}
    async with contextlib.AsyncExitStack() as stack:
        for receiver in receivers.values():
            await receiver.start()
            stack.push_async_callback(receiver.stop)
        sections = "".join(receiver.sections() for receiver in receivers.values())
        server = await stack.enter_async_context(OwnServer(sections))
        stream = await stack.enter_async_context(EventStream(server))
        await first_part(server, stream, receivers)
        rest.process.send_signal(signal.SIGUSR2)
        await server.run()
        await second_part(server)

        async def all_delivered():
            return await server.metric("stube_webhook_outbox_rows") == 0

        await until(all_delivered, PATIENCE_S, "the outbox is empty")
        await until(lambda: complete(stream), 30, "the stream has everything")
        check_stream(stream)
        came = {path: receiver.of(path) for receiver in receivers.values() for path in receiver.hooks}
        for path, requests in came.items():
            check_signatures(path, requests)
            if path != "/gone":
                check_order(path, requests)
                check_whole(path, requests, stream)
            repeated = len(requests) - len({request["id"] for request in requests})
            print(f"    {path}: {len(requests)} requests, {repeated} of them repetitions")
        check_manners(receivers)


async def complete(stream):
    return len(stream.bodies) == 3 * CALL.total() + CRASHED_CALL.total() + EMPTY_ROOM.total()
