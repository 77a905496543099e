"""Two tenants on one server: whatever route one asks with the other's names and ids, it learns and changes nothing.

Mostly that is 404, and the same 404 as for what does not exist at all. Lists and sums answer 200 without the other's
rows, people 200 with zeros; the session's URL is a capability, so that it needs no token. Each route of
the API's document has to be asked here.

    STUBE_BIN=target/debug/stube .venv/bin/python tests/interop/isolation.py
"""

import asyncio
import base64
import hashlib
import hmac
import json
import pathlib
import re
import sys
import tempfile
import time

from ledger_server import TENANTS, LedgerServer, basic
from server import until
from witness import Load, Witness, settled

OURS, THEIRS = TENANTS
OFFER = pathlib.Path(__file__).parents[1] / "offers/chromium_plain_vp8.sdp"
METHODS = {"get", "post", "put", "patch", "delete", "head"}
PAGES = {"GET /whip", "GET /whep", "HEAD /whep", "GET /v1/openapi.json"}  # the same for everyone
NOTHING = {
    "participant_ms": 0, "rounded_up_minutes": 0, "peak_participants": 0, "calls": 0, "egress_bytes": 0,
    "ingress_bytes": 0}


async def routes(server):
    """Method and pattern of every route of the API, by its own document, which its unit tests hold to the router."""
    async with server.http.get(server.url + "/v1/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods if method in METHODS}
    assert len(found) > 25, found
    return found


def sign(tenant, claims):
    """A token of a tenant."""
    encode = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    claims = {"iss": tenant, "exp": int(time.time()) + 300, **claims}
    head = f'{encode(b"""{"alg":"HS256","typ":"JWT"}""")}.{encode(json.dumps(claims).encode())}'
    return f"{head}.{encode(hmac.digest(TENANTS[tenant].encode(), head.encode(), hashlib.sha256))}"


def without_instance(answer):
    """What tells two answers apart, but for the request's own name."""
    status, body = answer
    return status, {key: value for key, value in body.items() if key != "instance"} if isinstance(body, dict) else body


class Isolation:
    """Our tenant has a call; theirs asks for everything in it."""

    def __init__(self, server, witness):
        self.server, self.witness = server, witness
        self.covered = {}

    async def arrange(self):
        theirs = {stay.identity for stay in self.witness.stays.values() if stay.tenant == THEIRS}
        # Somebody whose identity the other tenant does not know by accident.
        stay = next(stay for stay in self.witness.stays.values() if stay.tenant == OURS and stay.identity not in theirs)
        self.room, self.identity = stay.room, stay.identity
        self.session = next(path for path, one in self.witness.by_path.items() if one is stay)
        self.their_room = next(stay.room for stay in self.witness.stays.values() if stay.tenant == THEIRS)
        one = await self.server.get(OURS, f"/v1/rooms/{self.room}/participants/{self.identity}")
        self.track = one["tracks"][0]["sid"]
        self.participant = one["sid"]
        self.sid = (await self.server.get(OURS, f"/v1/rooms/{self.room}"))["sid"]
        [record] = (await self.server.get(OURS, f"/v1/records?identity={self.identity}&room={self.room}"))["records"]
        self.call, self.record = record["call"], record["record_id"]
        export = await self.server.get(OURS, f"/v1/subjects/{self.identity}")
        self.event = export["events"][0]["id"]
        self.admin = sign(THEIRS, {"video": {"roomAdmin": True, "roomCreate": True, "roomList": True}})

    def note(self, route, said):
        self.covered.setdefault(route, []).append(said)

    async def same(self, route, method, ours, unknown, status, code=None, **request):
        """By key and by token, theirs gets for what is ours just what it gets for what is nowhere."""
        for token in (None, self.admin):
            answers = [await self.server.ask(THEIRS, method, path, token=token, **request) for path in (ours, unknown)]
            answers = list(map(without_instance, answers))
            assert answers[0] == answers[1], f"{route}: {answers[0]} for ours, {answers[1]} for nothing"
            got, body = answers[0]
            assert got == status and (code is None or body["code"] == code), f"{route}: {got} {body}"
        self.note(route, f"{status} {body.get('code', 'and nothing in it')}")
        return body

    async def rooms_do_not_exist(self):
        room, nobody = f"/v1/rooms/{self.room}", "/v1/rooms/nowhere"
        one, track = f"/participants/{self.identity}", f"/participants/{self.identity}/tracks/{self.track}/muted"
        cases = (
            ("GET", "", "", None), ("PATCH", "", "", {"metadata": "x"}), ("DELETE", "", "", None),
            ("POST", "/tokens", "/tokens", {"identity": "eve"}),
            ("POST", "/messages", "/messages", {"topic": "x", "data": 1, "to": [self.identity]}),
            ("GET", "/stats", "/stats", None), ("GET", "/participants", "/participants", None),
            ("GET", "/participants/{identity}", one, None),
            ("PATCH", "/participants/{identity}", one, {"name": "x"}),
            ("DELETE", "/participants/{identity}", one, None),
            ("PUT", "/participants/{identity}/tracks/{track}/muted", track, {"muted": True}),
            ("POST", "/participants/{identity}/move", one + "/move", {"room": self.their_room}),
        )  # fmt: skip
        for method, pattern, rest, body in cases:
            route = f"{method} /v1/rooms/{{name}}{pattern}"
            await self.same(route, method, room + rest, nobody + rest, 404, "room_not_found", body=body)
            # Nor by its id.
            by_id = await self.server.ask(THEIRS, method, f"/v1/rooms/{self.sid}{rest}", body)
            assert by_id[0] == 404, f"{route} by id: {by_id}"

    async def people_do_not_exist(self):
        """In a room of their own, with our identities and tracks."""
        own = f"/v1/rooms/{self.their_room}/participants"
        path = f"{own}/{self.identity}"
        for method, rest, body in (
            ("GET", "", None), ("PATCH", "", {"name": "x"}), ("DELETE", "", None),
            ("POST", "/move", {"room": self.their_room}), ("PUT", f"/tracks/{self.track}/muted", {"muted": True}),
        ):  # fmt: skip
            about = f"{method} (own room){re.sub('/TR_.*', '', rest)}"
            await self.same(about, method, path + rest, f"{own}/nobody{rest}", 404, body=body)
        theirs = (await self.server.get(THEIRS, own))["participants"][0]["identity"]
        path, message = f"/v1/rooms/{self.their_room}/messages", {"topic": "x", "data": 1}
        said = [
            await self.server.ask(THEIRS, "POST", path, {**message, "to": [to]}) for to in (self.identity, "nobody")]
        assert said[0] == said[1] and said[0][0] == 204, said
        no_track = f"TR_{'0' * 22}"
        await self.same(
            "PUT (own participant, our track)", "PUT", f"{own}/{theirs}/tracks/{self.track}/muted",
            f"{own}/{theirs}/tracks/{no_track}/muted", 404, "track_not_found", body={"muted": True})
        for room in (self.room, "nowhere"):
            answer = await self.server.ask(THEIRS, "POST", f"{own}/{theirs}/move", {"room": room})
            assert answer[0] == 404 and answer[1]["code"] == "room_not_found", answer

    async def a_name_is_free(self):
        """A room of the same name is another room, and an idempotency key another key."""
        listed = await self.server.pages(THEIRS, "/v1/rooms", "rooms")
        assert self.room not in {room["name"] for room in listed}
        self.note("GET /v1/rooms", "200 without ours")
        key = {"Idempotency-Key": "the-same"}
        made = [await self.server.ask(tenant, "POST", "/v1/rooms", {}, headers=key) for tenant in (OURS, THEIRS)]
        assert [answer[0] for answer in made] == [201, 201] and made[0][1]["sid"] != made[1][1]["sid"], made
        status, twin = await self.server.ask(THEIRS, "POST", "/v1/rooms", {"name": self.room, "max_participants": 7})
        assert status == 201 and twin["sid"] != self.sid and twin["num_participants"] == 0, twin
        self.note("POST /v1/rooms", "201, another room")
        participants = await self.server.get(THEIRS, f"/v1/rooms/{self.room}/participants")
        assert participants["participants"] == []
        for path in (f"/v1/calls?room={self.room}", f"/v1/records?room={self.room}"):
            rows = await self.server.get(THEIRS, path)
            assert not rows.get("calls") and not rows.get("records"), rows
        token = sign(THEIRS, {"sub": self.identity, "video": {"room": self.room, "roomJoin": True}})
        async with self.server.http.get(
            self.server.url + self.session, headers={"Authorization": f"Bearer {token}"}) as answer:
            probed = answer.status
        assert probed == 404, probed
        self.note("GET /v1/sessions/{id}", "404")
        for method in ("PATCH", "DELETE"):  # the same identity in a room of the same name is still a stranger
            answer = await self.server.ask(THEIRS, method, self.session, token=token, **fragment(method))
            assert answer[0] == 404, answer
        assert (await self.server.ask(THEIRS, "DELETE", f"/v1/rooms/{self.room}"))[0] == 204
        assert (await self.server.get(OURS, f"/v1/rooms/{self.room}"))["sid"] == self.sid

    async def accounts_are_empty(self):
        for query in (f"room={self.room}", f"from=2020-01-01&room={self.room}"):
            body = await self.same("GET /v1/calls", "GET", f"/v1/calls?{query}", "/v1/calls?room=nowhere", 200)
            assert body == {"calls": [], "next_cursor": None}, body
        for query in (f"room={self.room}", f"call={self.call}", f"room={self.room}&identity={self.identity}"):
            body = await self.same("GET /v1/records", "GET", f"/v1/records?{query}", "/v1/records?room=nowhere", 200)
            assert body == {"records": [], "next_cursor": None}, body
        query = "/v1/usage?group_by=room&room="
        body = await self.same("GET /v1/usage", "GET", query + self.room, query + "nowhere", 200)
        assert body["usage"] == [] and NOTHING.items() <= body["total"].items(), body
        # A cursor is a place in time, not a key to what is there.
        for path, key in (("/v1/records", "records"), ("/v1/calls", "calls"), ("/v1/rooms", "rooms")):
            cursor = (await self.server.get(OURS, f"{path}?limit=1"))["next_cursor"]
            rows = (await self.server.get(THEIRS, f"{path}?cursor={cursor}"))[key]
            everything = json.dumps(rows)
            assert self.room not in everything and self.call not in everything, rows

    async def people_are_nobody(self):
        path, nobody = f"/v1/subjects/{self.identity}", "/v1/subjects/nobody"
        zeros = {"records": 0, "events": 0, "sessions": 0}
        said = await self.same("GET /v1/subjects/{identity}", "GET", path, nobody, 200)
        assert said["records"] == said["events"] == [], said
        said = await self.same("DELETE /v1/subjects/{identity}", "DELETE", path, nobody, 200)
        assert said == zeros, said
        for word, empty in (("export", {"records": [], "events": []}), ("erase", zeros)):
            path = f"/v1/subjects/{word}"
            status, said = await self.server.ask(THEIRS, "POST", path, {"identities": [self.identity, "nobody"]})
            assert status == 200 and empty.items() <= said.items(), said
            self.note(f"POST {path}", "200, zeros")

    async def events_are_silent(self):
        """Their stream, begun after one of our events, has what is theirs and begins where an unknown one does."""
        heard = [await self.listen(THEIRS, event) for event in (self.event, f"EV_{'0' * 22}")]
        assert heard[0] and heard[0] == heard[1], heard
        own = {event["id"] for event in await self.listen(OURS, f"EV_{'0' * 22}")}
        assert own and not own & {event["id"] for event in heard[0]}
        text = json.dumps(heard)
        assert all(word not in text for word in (self.room, self.sid, self.call, self.participant, self.track)), text
        self.note("GET /v1/events", "200, theirs alone")

    async def listen(self, tenant, after, seconds=1.2):
        headers = {"Authorization": basic(tenant)}
        events, wanted = [], time.monotonic() + seconds
        async with self.server.http.get(f"{self.server.url}/v1/events?after={after}", headers=headers) as answer:
            assert answer.status == 200, answer.status
            while (left := wanted - time.monotonic()) > 0:
                try:
                    line = (await asyncio.wait_for(answer.content.readline(), left)).decode()
                except asyncio.TimeoutError:
                    break
                if line.startswith("data:"):
                    events.append(json.loads(line[5:]))
        return events

    async def sessions_are_closed(self):
        """Nobody joins our room with their token, and none of theirs is good for our session."""
        offer = OFFER.read_text()
        sdp = {"Content-Type": "application/sdp"}
        eve = lambda room: sign(THEIRS, {"sub": "eve", "video": {"room": room, "roomJoin": True}})
        tokens = [eve(self.room), eve("nowhere")]
        for path in ("/v1/sessions", "/whip", "/whep", f"/whep?participant={self.identity}"):
            answers = [
                without_instance(await self.server.ask(THEIRS, "POST", path, data=offer, headers=sdp, token=token))
                for token in tokens]
            assert answers[0] == answers[1] and answers[0][0] == 404, answers
            self.note(f"POST {path.split('?')[0]}", f"404 {answers[0][1]['code']}")
        token = eve(self.their_room)
        played = [
            await self.server.ask(THEIRS, "POST", f"/whep?participant={who}", data=offer, headers=sdp, token=token)
            for who in (self.identity, "nobody")]
        assert played[0][0] == played[1][0], played
        self.note("POST /whep (own room, our identity)", f"{played[0][0]}, as for nobody")
        for method in ("PATCH", "DELETE"):
            known = await self.server.ask(THEIRS, method, self.session, token=token, **fragment(method))
            unknown = await self.server.ask(
                THEIRS, method, f"/v1/sessions/SE_{'0' * 22}", token=token, **fragment(method))
            assert without_instance(known) == without_instance(unknown) and known[0] == 404, (known, unknown)
            self.note(f"{method} /v1/sessions/{{id}}", f"404 {known[1]['code']}, as unknown")
        status, body = await self.server.ask(THEIRS, "POST", "/demo/token", {"room": self.room, "identity": "eve"})
        assert status == 404, body
        self.note("POST /demo/token", f"404 {body['code']}: no demo without devkey")

    async def nothing_happened(self):
        """Our call is as it was."""
        one = await self.server.get(OURS, f"/v1/rooms/{self.room}/participants/{self.identity}")
        assert one["sid"] == self.participant and one["name"] == "" and one["state"] == "active"
        assert not any(track["muted"] for track in one["tracks"])
        [record] = (await self.server.get(OURS, f"/v1/records?identity={self.identity}&room={self.room}"))["records"]
        assert record["record_id"] == self.record and record["identity"] == self.identity and not record["final"]


def fragment(method):
    if method != "PATCH":
        return {}
    return {"data": "a=ice-ufrag:abcd\r\n", "headers": {"Content-Type": "application/trickle-ice-sdpfrag"}}


async def main():
    with tempfile.TemporaryDirectory(prefix="stube-isolation-") as state:
        async with LedgerServer(state) as server, Witness(server) as witness:
            light = ("--no-data-channel", "--video-kbps", "60", "--fps", "5", "--warmup", "0")
            loads = [
                await Load(witness, tenant).start(2, participants, *light)
                for tenant, participants in ((OURS, 4), (THEIRS, 3))]
            try:
                await settled(witness, 14, loads)
                test = Isolation(server, witness)

                async def on_record():
                    kept = [(await server.get(tenant, "/v1/records"))["records"] for tenant in TENANTS]
                    return [len(records) for records in kept] == [8, 6]

                await until(on_record, 10, "both tenants have records")
                await test.arrange()
                for case in (
                    test.rooms_do_not_exist, test.people_do_not_exist, test.accounts_are_empty, test.events_are_silent,
                    test.sessions_are_closed, test.people_are_nobody, test.a_name_is_free, test.nothing_happened,
                ):  # fmt: skip
                    await case()
                    print(f"ok      {case.__name__}")
                known = await routes(server)
                reports = [await load.report() for load in loads]
                assert all(report["lost"] == 0 for report in reports)
            finally:
                for load in loads:
                    await load.kill()
    for route, said in sorted(test.covered.items()):
        print(f"    {route}: {'; '.join(dict.fromkeys(said))}")
    missing = known - test.covered.keys() - PAGES
    assert not missing, f"routes without a case here: {missing}"
    print(f"{len(known)} routes, all of them asked")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
