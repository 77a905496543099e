"""Canaries: an address, a name, a token, a User-Agent and more go through a whole call with sound and picture.

They are then looked for, byte by byte and in every usual encoding, wherever the server leaves something: its state
directory, its log, metrics, webhooks, the event stream and the answers of its API. Each may be found only where
docs/protocol.md and docs/privacy.md say so; after the erasure of the person nothing of it is on disk.

Panics are not provoked: no request is known that makes the real binary panic. src/run.rs logs of a panic its place and
thread, never its message.
"""

import asyncio
import base64
import contextlib
import json
import re
import urllib.parse

import aiohttp
from aiohttp import web
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from aiortc_peer import Picture, Tone
from events import EventStream
from own_server import OwnServer, receiver
from server import KEY, SECRET, until
from tokens import pyjwt

ADDRESS, NETWORK = "198.51.100.77", "198.51.100.0/24"
OTHER_ADDRESS = "203.0.113.9"
IDENTITY = "p-canaryidentity"
ROOM = "hall"
WEBHOOK_SECRET = "the-canary-webhook-secret-of-this-test"
USER_AGENT = "CanaryBrowser/17.4 (X11; Linux x86_64; canary-device-9) AppleWebKit/537.36 Chrome/140.0"
PERSON = {"name": "Canaryname Ada", "metadata": "canary-metadata", "attributes": {"canary-key": "canary-value"}}

# What no mode lets the server write anywhere, nor show to a map service that asks for participants.
SECRETS = {
    "User-Agent": "CanaryBrowser",
    "device in the User-Agent": "canary-device-9",
    "referrer": "canary-referrer",
    "cookie": "canary-cookie",
    "claim that nobody knows": "canary-unknown-claim",
    "topic of a message": "canary-topic",
    "text of a message": "canary-text",
    "SDP": "canary-sdp",
    "personal identity that was refused": "canary.person",
    "room that does not exist": "canary-room",
    "secret of the API key": SECRET,
    "secret of the webhook": WEBHOOK_SECRET,
}
# What others in the room see and the API's participants show, and nothing keeps.
SHOWN = {
    "name": PERSON["name"],
    "metadata": PERSON["metadata"],
    "attribute": "canary-value",
    "attribute's key": "canary-key",
}

# How an address is kept; whether its person is erased in mid-call or afterwards; what is logged. With "trace" alone the
# libraries under the media speak too: of addresses, ICE passwords and short messages, so these are left out there.
MODES = {
    "none": ("after", "info"),
    "prefix": ("in the call", "trace"),
    "hmac": ("after", "info,stube=trace"),
    "full": ("in the call", "trace"),
}


def encodings(text):
    """The bytes of a text in the forms in which it might be written down."""
    raw = text.encode()
    forms = {raw, raw.hex().encode(), raw.hex().upper().encode(), urllib.parse.quote(text, safe="").encode()}
    forms |= {text.encode("utf-16-le"), text.encode("utf-16-be"), json.dumps(text)[1:-1].encode()}
    for shift in range(3):
        # Base64 of anything that holds the text: without the characters that depend on what stands around it.
        whole = base64.b64encode(b"\0" * shift + raw)
        inner = whole[0 if shift == 0 else shift + 1 : len(whole) - len(whole) % 4 - 4]
        forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in forms if len(form) >= min(len(raw), 8)}


ADDRESS_FORMS = encodings(ADDRESS) | {bytes([198, 51, 100, 77]), b"c633644d", b"C633644D", b"3325256781"}


def found(data, text):
    """Whether the bytes hold the text in any form."""
    return any(form in data for form in (ADDRESS_FORMS if text == ADDRESS else encodings(text)))


class Traces:
    """What a server has left so far, by place."""

    server = stream = None

    def __init__(self):
        self.webhooks, self.metrics = b"", b""
        self.answers = {}

    async def take(self, request):
        """Takes in a webhook as it came, head and body."""
        self.webhooks += repr((request.path, list(request.raw_headers))).encode() + await request.read() + b"\n"
        return web.Response(status=204)

    async def scrape(self):
        self.metrics += (await self.server.text(self.server.admin + "/metrics")).encode()

    def disk(self):
        """Bytes of all files of the state directory, the write-ahead log among them."""
        return b"".join(path.read_bytes() for path in sorted(self.server.state.rglob("*")) if path.is_file())

    async def ask(self, path):
        """Keeps an answer of the API."""
        text = await self.server.text(self.server.url + path, auth=aiohttp.BasicAuth(KEY, SECRET))
        self.answers[path] = self.answers.get(path, b"") + text.encode()

    def places(self):
        return {
            "the disk": self.disk(), "the log": self.server.log_bytes(), "the metrics": self.metrics,
            "the webhooks": self.webhooks, "the event stream": self.stream.raw, **self.answers,
        }  # fmt: skip

    def check(self, what, text, allowed):
        """The text is in those places whose names match one of the patterns, in each of them, and in no other."""
        places = self.places()
        expected = {place for place in places if any(re.fullmatch(pattern, place) for pattern in allowed)}
        actual = {place for place, data in places.items() if found(data, text)}
        assert actual <= expected, f"the {what} ({text[:40]}…) is in {', '.join(sorted(actual - expected))}"
        assert actual == expected, f"the {what} was expected in {', '.join(sorted(expected - actual))}"


class Caller:
    """One who sends and receives sound, pictures and messages, with headers of their own."""

    def __init__(self, server, address, token, **headers):
        self.server = server
        self.headers = {"X-Forwarded-For": address, "Authorization": f"Bearer {token}", **headers}
        # aiortc 1.16 loses the transport of the second m-line of a kind otherwise.
        self.peer = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.heard, self.frames, self.tasks = [], 0, []
        for track in (Tone(), Picture()):
            self.peer.addTransceiver(track, "sendonly")
        for kind in ("audio", "video"):
            self.peer.addTransceiver(kind, "recvonly")
        self.channel = self.peer.createDataChannel("stube", protocol="stube.v1")
        self.channel.on("message", lambda text: self.heard.append(json.loads(text)))
        self.peer.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self._play(track))))

    async def _play(self, track):
        with contextlib.suppress(Exception):  # Whatever ends a track; the frames are counted below.
            while True:
                await track.recv()
                self.frames += track.kind == "video"

    async def join(self, change=lambda sdp: sdp):
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = change(self.peer.localDescription.sdp)
        async with self._request("POST", "/v1/sessions", "application/sdp", offer) as answer:
            self.answer = await answer.text()
            assert answer.status == 201, f"join: {answer.status} {self.answer}"
            self.session, self.tag = answer.headers["Location"], answer.headers["ETag"]
        self.offer = offer
        await self.peer.setRemoteDescription(RTCSessionDescription(with_candidates_everywhere(self.answer), "answer"))

    def _request(self, method, path, content_type, body, **headers):
        headers = {**self.headers, "Content-Type": content_type, **headers}
        return self.server.http.request(method, self.server.url + path, data=body, headers=headers)

    async def trickle(self, candidate):
        """Tells of a candidate."""
        parts = re.findall(r"a=(?:ice-ufrag|ice-pwd):.*\r\n", self.offer)[:2]
        fragment = "".join(parts) + f"m=audio 9 RTP/AVP 0\r\na=mid:0\r\na={candidate}\r\n"
        kind, match = "application/trickle-ice-sdpfrag", {"If-Match": self.tag}
        sent = self._request("PATCH", self.session, kind, fragment, **match)
        async with sent as answer:
            assert answer.status == 204, f"trickle: {answer.status} {await answer.text()}"

    async def try_to_join(self, token, sdp, status):
        """A join that is refused."""
        sent = self._request("POST", "/v1/sessions", "application/sdp", sdp, Authorization=f"Bearer {token}")
        async with sent as answer:
            text = await answer.text()
            assert answer.status == status, f"expected {status}: {answer.status} {text}"
            return text

    def send(self, **message):
        self.channel.send(json.dumps(message))

    async def is_told(self, text):
        """Waits for a message of the server with this text in it."""
        async def told():
            return any(text in json.dumps(message) for message in self.heard)

        await until(told, 30, f"the data channel tells of {text}; it told {self.heard}")

    async def sees(self, frames=10):
        async def decoded():
            return self.frames >= frames

        await until(decoded, 40, f"{frames} decoded pictures")

    async def leave(self):
        async with self._request("DELETE", self.session, "application/sdp", "") as answer:
            assert answer.status == 200, f"leave: {answer.status} {await answer.text()}"

    async def close(self):
        await self.peer.close()
        for task in self.tasks:
            task.cancel()


def with_candidates_everywhere(answer):
    """The answer with its candidates in every m-line. Bundled, they stand in the first alone (RFC 9143), and aiortc
    1.16 reads the last."""
    candidates = "".join(re.findall(r"a=candidate:.*\r\n", answer))
    without = answer.replace(candidates, "")
    return re.sub(r"(a=mid:\d+\r\n)", rf"\g<1>{candidates}", without)


def with_canaries(sdp):
    """The offer with an address where clients put theirs, and with a word that only SDP has."""
    sdp = sdp.replace("\r\ns=-\r\n", "\r\ns=canary-sdp\r\n", 1)
    sdp = re.sub(r"\bc=IN IP4 \S+", f"c=IN IP4 {ADDRESS}", sdp)
    candidate = f"a=candidate:77 1 udp 2130706431 {ADDRESS} 50077 typ host\r\n"
    return re.sub(r"(a=mid:0\r\n)", rf"\g<1>{candidate}", sdp, count=1)


async def refusals(canary):
    """What goes wrong is to be as silent as what goes well."""
    grant = {"roomJoin": True, "room": ROOM}
    good = pyjwt(grant, sub=IDENTITY, **PERSON)
    texts = [
        await canary.try_to_join(good[:-6], canary.offer, 401),
        await canary.try_to_join(good, "v=0\r\na=canary-sdp\r\n", 400),
        await canary.try_to_join(pyjwt({**grant, "room": "canary-room"}, sub=IDENTITY), canary.offer, 404),
        await canary.try_to_join(pyjwt(grant, sub="canary.person@example.org"), canary.offer, 422),
    ]
    for text in texts:
        assert not any(found(text.encode(), secret) for secret in [*SECRETS.values(), *SHOWN.values(), ADDRESS]), text
    return good


class Secrets:
    """What is drawn anew for each call: `always` is never to be found, `quiet` not where the libraries are silent."""

    def __init__(self, canary, tokens):
        self.session = canary.session.rsplit("/", 1)[1]
        self.always = {}
        for number, token in enumerate(tokens, 1):
            _, self.always[f"token {number}'s payload"], self.always[f"token {number}'s signature"] = token.split(".")
        passwords = set(re.findall(r"a=ice-pwd:(\S+)", canary.offer + canary.answer))
        # Where media came from; the server is on the same machine.
        self.addresses = set(re.findall(r"a=candidate:\S+ \d udp \d+ (\S+)", canary.offer)) - {ADDRESS}
        self.quiet = {"unknown message": "canary-type"}
        self.quiet |= {f"ICE password {number}": password for number, password in enumerate(passwords, 1)}


@contextlib.asynccontextmanager
async def call(server, traces, erase):
    """A call of two, and whatever can be said in it; over when it is entered, or when it is left."""
    grant = {"roomJoin": True, "room": ROOM}
    token = pyjwt(grant, sub=IDENTITY, email="canary-unknown-claim@example.org", **PERSON)
    disguise = {
        "User-Agent": USER_AGENT,
        "Referer": "https://map.example/canary-referrer",
        "Cookie": "id=canary-cookie",
    }
    canary = Caller(server, ADDRESS, token, **disguise)
    other = Caller(server, OTHER_ADDRESS, pyjwt(grant, sub="p-other"))
    try:
        await other.join()
        await canary.join(with_canaries)
        await canary.trickle(f"candidate:78 1 udp 2130706431 {ADDRESS} 50078 typ host")
        await asyncio.gather(canary.sees(), other.sees())
        # By the contract others in the room learn who it is; so it was all there to be leaked.
        for text in (IDENTITY, *SHOWN.values()):
            await other.is_told(text)
        canary.send(type="message", topic="canary-topic", data={"text": "canary-text"})
        await other.is_told("canary-text")
        canary.send(type="canary-type")  # a message that does not exist
        message = {"topic": "canary-topic", "data": "canary-text"}
        await server.api("POST", f"/v1/rooms/{ROOM}/messages", message, expect=(204,))
        second_token = await refusals(canary)

        async def on_record():
            records = (await server.api("GET", f"/v1/records?identity={IDENTITY}"))["records"]
            return records and records[0]["rx_bytes"] > 0

        await until(on_record, 20, "a checkpoint has the canary's record")
        await traces.scrape()
        for path in (f"/v1/rooms/{ROOM}/participants", f"/v1/rooms/{ROOM}/participants/{IDENTITY}",
                     f"/v1/rooms/{ROOM}/stats", "/v1/rooms", f"/v1/rooms/{ROOM}", "/v1/records", "/v1/calls",
                     f"/v1/subjects/{IDENTITY}", "/v1/usage", "/v1/usage?group_by=room"):  # fmt: skip
            await traces.ask(path)
        if erase == "after":
            await canary.leave()
            await other.leave()
            await ended(server)
            await traces.ask("/v1/records")
        yield Secrets(canary, [token, second_token])
    finally:
        await canary.close()
        await other.close()


async def ended(server):
    async def final():
        records = (await server.api("GET", "/v1/records"))["records"]
        return len(records) == 2 and all(record["final"] for record in records)

    await until(final, 20, "both records are final")


def check_traces(traces, mode, kept, secrets, is_quiet):
    """Before the erasure: each canary is where it may be, and nowhere else."""
    participants, stats = rf"/v1/rooms/{ROOM}/participants(/.*)?", f"/v1/rooms/{ROOM}/stats"
    records = ["/v1/records", "/v1/subjects/.*", "the disk"]
    for what, text in [*SECRETS.items(), *secrets.always.items(), *(secrets.quiet.items() if is_quiet else ())]:
        traces.check(what, text, [])
    for what, text in SHOWN.items():
        traces.check(what, text, [participants])
    traces.check("identity", IDENTITY, [participants, stats, *records, "the webhooks", "the event stream"])
    traces.check("address", ADDRESS, records if mode == "full" else [])
    if kept:
        traces.check(f"address in the mode {mode}", kept, records)
    # It is a capability, which the API alone shows, to whoever administers the room.
    traces.check("session's id", secrets.session, [stats])


async def one_mode(mode):
    """A call, what it leaves, and the erasure."""
    erase, level = MODES[mode]
    # Without a server yet: the receiver is made before it, and used after it was started.
    traces = Traces()
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(receiver(traces.take))
        section = f'[[webhook]]\nurl = "{url}"\nsecret = "{WEBHOOK_SECRET}"\n'
        environment = {
            "STUBE__HTTP__TRUSTED_PROXIES": "127.0.0.1", "STUBE__PRIVACY__IP_MODE": mode,
            "STUBE__LEDGER__CHECKPOINT_S": "1", "STUBE__LOG__LEVEL": level,
        }  # fmt: skip
        server = traces.server = await stack.enter_async_context(OwnServer(section, **environment))
        stream = traces.stream = await stack.enter_async_context(EventStream(server))
        await server.open_room(ROOM)
        secrets = await stack.enter_async_context(call(server, traces, erase))
        [record] = (await server.api("GET", f"/v1/records?identity={IDENTITY}"))["records"]
        assert record["ip"]["mode"] == mode and (record["os"], record["client"]) == ("linux", "chromium"), record
        kept = record["ip"]["value"] or ""
        check_kept(mode, kept)

        async def all_told():
            return stream.bodies and not await server.metric("stube_webhook_outbox_rows")

        await until(all_told, 30, "the outbox is empty")
        await traces.scrape()
        check_traces(traces, mode, kept, secrets, level != "trace")
        await check_erasure(server, traces, kept, erase)
        await traces.scrape()
        check_outside(traces, secrets, level)
        size = sum(len(data) for data in traces.places().values())
        print(f"    kept {kept or 'nothing'}; looked through {size} bytes, {len(server.log_bytes())} of them logged")


def check_kept(mode, kept):
    """What the mode lets a record keep."""
    expected = {"none": "", "prefix": NETWORK, "full": ADDRESS}.get(mode)
    if mode == "hmac":
        assert re.fullmatch("[0-9a-f]{16}", kept), kept
    else:
        assert kept == expected, f"{mode} keeps {kept}"


async def check_erasure(server, traces, kept, erase):
    """Afterwards no byte of it is on disk, nor once the server has ended the session and written again."""
    erased = await server.api("DELETE", f"/v1/subjects/{IDENTITY}")
    assert erased["records"] == 1 and erased["events"] >= 3, erased
    assert erased["sessions"] == (1 if erase == "in the call" else 0), erased
    traces_of_them = {"identity": IDENTITY, "address": ADDRESS, "kept form": kept, "network": "198.51.100"}
    for when in ("at once", "when it was written again"):
        disk = traces.disk()
        assert found(disk, "p-other"), "the other one is gone too"
        for what, text in traces_of_them.items():
            assert not text or not found(disk, text), f"{when} after the erasure the {what} is on disk"
        await server.api("DELETE", f"/v1/rooms/{ROOM}", expect=(204, 404))
        await asyncio.sleep(1.5)  # a checkpoint
    rest = await server.api("GET", f"/v1/subjects/{IDENTITY}")
    assert rest["records"] == rest["events"] == [], rest


def check_outside(traces, secrets, level):
    """After the erasure, too, nothing has got out; and the log was as talkative as it was told to be."""
    outside = {place: data for place, data in traces.places().items() if place[0] != "/" and place != "the disk"}
    for what, text in [*SECRETS.items(), *SHOWN.items(), *secrets.always.items(), ("address", ADDRESS)]:
        for place, data in outside.items():
            assert not found(data, text), f"the {what} got into {place} by the erasure"
    log = traces.server.log_bytes().decode(errors="replace")
    assert not found(log.encode(), IDENTITY), "the identity is in the log"
    assert ("TRACE" in log) == (level == "trace"), f"level {level}, and the log: {log[:1000]}"
    assert ("DEBUG" in log) == ("trace" in level), f"level {level}, and the log: {log[:1000]}"
    assert "panicked" not in log, log
    if level != "trace":
        lines = [line for line in log.splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
        assert secrets.addresses, "the client has no address"
        told = [line for line in lines if any(address in line for address in {*secrets.addresses, "127.0.0.1"})]
        assert not told, f"the log has an address: {told}"


def case(mode):
    """The case of one mode."""
    return lambda: one_mode(mode)
