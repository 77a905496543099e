"""Whether the books are right: records against what clients know, sums against records, the API against the store."""

import collections
import contextlib
import dataclasses
import json
import math
import os
import sqlite3
import subprocess
import threading
import time

from ledger_server import CHECKPOINT_S, TENANTS

LOSS_MAX_S = CHECKPOINT_S + 1  # what a crash may cost a record
# An end is written some 50 ms after it; one that a crash came upon before that counts as cut off.
WRITING_S = 1.0
DAY_MS = 86_400_000

SESSIONS = """SELECT tenant, count(*), sum(CASE WHEN ended_at IS NULL THEN 1 ELSE 0 END), sum(duration_ms),
    sum(rx_bytes), sum(tx_bytes), sum((duration_ms + 59999) / 60000) FROM sessions GROUP BY tenant"""
CALLS = """SELECT tenant, count(*), sum(CASE WHEN ended_at IS NULL THEN 1 ELSE 0 END), sum(rx_bytes), sum(tx_bytes),
    sum(participants) FROM calls GROUP BY tenant"""
SUMS = """SELECT tenant, sum(participant_ms), sum(ingress_bytes), sum(egress_bytes), sum(rounded_up_minutes), sum(calls)
    FROM sums GROUP BY tenant"""
DAYS = f"""SELECT tenant, joined_at / {DAY_MS}, sum(duration_ms), sum(rx_bytes), sum(tx_bytes) FROM sessions
    GROUP BY tenant, joined_at / {DAY_MS} ORDER BY 1, 2"""
DAY_SUMS = "SELECT tenant, day, participant_ms, ingress_bytes, egress_bytes FROM sums ORDER BY 1, 2"
TOLD = "SELECT room_id, seq, body FROM events WHERE room_id IS NOT NULL ORDER BY tenant, position"
LEFT = "SELECT participant_id, room_id, identity, duration_ms, end_reason FROM sessions"
ROOM_SEQS = "SELECT room_id, seq FROM rooms"
OVER_MIDNIGHT = f"SELECT count(*) FROM sessions WHERE joined_at / {DAY_MS} <> ended_at / {DAY_MS}"


@dataclasses.dataclass
class Books:
    """Everything the API tells, by tenant."""

    records: dict
    calls: dict
    days: dict
    rooms: dict


@dataclasses.dataclass
class Findings:
    """What a crash or an outage cost, in seconds; only what is proven."""

    stays: int = 0
    crashed: int = 0
    ended: int = 0
    unrecorded: int = 0
    loss_s: float = -math.inf  # the worst, at least
    loss_at_most_s: float = -math.inf  # the worst, at most
    losses: list = dataclasses.field(default_factory=list)
    margin_s: float = math.inf  # how far the longest record stays below the longest it could be

    def add(self, other):
        for field in ("stays", "crashed", "ended", "unrecorded"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.loss_s = max(self.loss_s, other.loss_s)
        self.loss_at_most_s = max(self.loss_at_most_s, other.loss_at_most_s)
        self.losses += other.losses
        self.margin_s = min(self.margin_s, other.margin_s)


async def read(server):
    """The books, by the API."""
    books = Books({}, {}, {}, {})
    for tenant in TENANTS:
        books.records[tenant] = await server.pages(tenant, "/v1/records", "records")
        books.calls[tenant] = await server.pages(tenant, "/v1/calls", "calls")
        books.days[tenant] = await server.get(tenant, "/v1/usage")
        books.rooms[tenant] = await server.get(tenant, "/v1/usage?group_by=room")
    return books


def query(server, sql):
    """Rows of the database itself."""
    if server.database.startswith("sqlite:"):
        file = server.state / "stube.db"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(sql).fetchall()
    command = ["psql", "-X", "-A", "-t", "-c", sql, server.database]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    number = lambda text: int(text) if text.lstrip("-").isdigit() else text
    return [tuple(map(number, line.split("|"))) for line in out.stdout.splitlines()]


def check_sums(server, books, running=False):
    """The API's sums are those of its records, the database's too, and nothing is open."""
    sessions, calls, sums = ({row[0]: row[1:] for row in query(server, sql)} for sql in (SESSIONS, CALLS, SUMS))
    for tenant in TENANTS:
        records = books.records[tenant]
        if not records:
            continue
        total = collections.Counter()
        for record in records:
            total.update({key: record[key] for key in ("duration_ms", "rx_bytes", "tx_bytes")})
            total["minutes"] += -(-record["duration_ms"] // 60_000)
        used = books.days[tenant]["total"]
        said = tuple(
            used[key] for key in ("participant_ms", "ingress_bytes", "egress_bytes", "rounded_up_minutes", "calls"))
        added = (total["duration_ms"], total["rx_bytes"], total["tx_bytes"], total["minutes"], len(books.calls[tenant]))
        assert said == added, f"{tenant}: usage says {said}, its records add up to {added}"
        by_day = [sum(day[key] for day in books.days[tenant]["usage"]) for key in ("participant_ms", "ingress_bytes")]
        assert by_day == list(said[:2]), f"{tenant}: days {by_day}, total {said}"
        check_rooms(books, tenant)
        check_calls(books, tenant)
        assert len({record["record_id"] for record in records}) == len(records)
        if not running:
            assert all(record["final"] for record in records), "the API has open records"
            assert all(call["final"] for call in books.calls[tenant]), "the API has open calls"
            in_store = (len(records), 0, *added[:4])
            assert sessions[tenant] == in_store, f"{tenant}: in the database {sessions[tenant]}, by the API {in_store}"
            assert calls[tenant] == (len(books.calls[tenant]), 0, *added[1:3], len(records)), calls[tenant]
            assert sums[tenant] == added, f"{tenant}: in the database {sums[tenant]}, by the API {added}"
    if not running and query(server, OVER_MIDNIGHT) == [(0,)]:
        by_record, by_sum = query(server, DAYS), query(server, DAY_SUMS)
        assert by_record == by_sum, f"by tenant and day: records {by_record}, sums {by_sum}"


def check_events(server):
    """Each room's events count from one without a gap, over all restarts, and each record's person came and left once."""
    seqs, came, left = collections.Counter(), collections.Counter(), {}
    for room, seq, body in query(server, TOLD):
        seqs[room] += 1
        assert seq == seqs[room], f"event {seq} of a room follows {seqs[room] - 1}"
        body = json.loads(body)
        assert (body["seq"], body["room"]["sid"]) == (seq, room), body
        who = body.get("participant")
        if body["event"] == "participant_joined":
            came[who["sid"]] += 1
        elif body["event"] == "participant_left":
            assert who["sid"] not in left, f"left twice: {body}"
            left[who["sid"]] = (room, who["identity"], who["duration_ms"], who["reason"])
    ended = {participant: tuple(row) for participant, *row in query(server, LEFT)}
    assert left == ended, f"records {ended.items() - left.items()}, told {left.items() - ended.items()}"
    assert came == collections.Counter(ended.keys()), "somebody's coming was not told, or twice"
    wrong = [(seq, seqs[room]) for room, seq in query(server, ROOM_SEQS) if seq != seqs[room]]
    assert not wrong, f"rooms that count otherwise than their events: {wrong}"


def check_rooms(books, tenant):
    """By room, usage is the sum of the room's records."""
    added = collections.defaultdict(lambda: [0, 0, 0])
    for record in books.records[tenant]:
        for place, key in enumerate(("duration_ms", "rx_bytes", "tx_bytes")):
            added[record["room"]][place] += record[key]
    said = {
        used["room"]: [used["participant_ms"], used["ingress_bytes"], used["egress_bytes"]]
        for used in books.rooms[tenant]["usage"]
        if used["participant_ms"] or used["ingress_bytes"]
    }
    added = {room: sums for room, sums in added.items() if sums[0] or sums[1]}
    assert said == added, f"{tenant}: usage by room differs from the records"


def check_calls(books, tenant):
    """A call has what its records have."""
    added = collections.defaultdict(lambda: [0, 0, 0])
    for record in books.records[tenant]:
        for place, value in enumerate((1, record["rx_bytes"], record["tx_bytes"])):
            added[record["call"]][place] += value
    for call in books.calls[tenant]:
        said = [call["participants"], call["rx_bytes"], call["tx_bytes"]]
        assert said == added[call["call"]], f"call {said}, its records {added[call['call']]}"
        assert call["peak_participants"] <= call["participants"]


class Standstill:
    """Measures for how long this machine let nobody run or its disk nobody write: what the server cannot write meanwhile
    is not its fault."""

    TICK_S = 0.02
    WRITE_S = 0.1  # between two writes
    WRITES = 2  # that a checkpoint waits for at most: its own, and one that is under way

    def __init__(self, folder):
        self.file = open(folder / "standstill", "wb", buffering=0)
        self.longest_s = self.longest_write_s = 0.0
        self.tick_at = self.write_at = None
        for work in (self.tick, self.write):
            threading.Thread(target=work, daemon=True).start()

    def tick(self):
        while True:
            self.tick_at = time.monotonic()
            time.sleep(self.TICK_S)
            self.longest_s = max(self.longest_s, time.monotonic() - self.tick_at - self.TICK_S)

    def write(self):
        while True:
            self.write_at = time.monotonic()
            self.file.write(b"x")
            os.fsync(self.file.fileno())
            self.longest_write_s = max(self.longest_write_s, time.monotonic() - self.write_at)
            self.write_at = None
            time.sleep(self.WRITE_S)

    def take(self):
        """The longest since the last time it was asked, in seconds; one that still lasts included."""
        under_way_s = 0.0 if self.write_at is None else time.monotonic() - self.write_at
        longest_s = self.longest_s + self.WRITES * max(self.longest_write_s, under_way_s)
        self.longest_s = self.longest_write_s = 0.0
        return longest_s


def check_stays(books, stays, killed=None, stood_still_s=0.0):
    """Each session has its one record, never longer than it lived. `killed`: moments between which the server died."""
    found = Findings(stays=len(stays))
    by_stay = collections.defaultdict(list)
    for tenant in TENANTS:
        for record in books.records[tenant]:
            by_stay[tenant, record["room"], record["identity"]].append(record)
    for key, stay in stays.items():
        records = by_stay.get(key, [])
        assert len(records) <= 1, f"{len(records)} records of one session: {records}"
        check_stay(stay, records[0] if records else None, killed, found, LOSS_MAX_S + stood_still_s)
    return found


def check_stay(stay, record, killed, found, loss_max_s):
    begun, ended = stay.seen, killed[0] if killed else None
    last = killed[1] if killed else None
    if stay.leaving is not None:
        ended = min(stay.leaving, ended) if killed else stay.leaving
        last = stay.left if stay.left is not None else last
    assert ended is not None and last is not None, f"it neither left nor was cut off: {stay}"
    lived_s = max(0.0, ended - begun) if begun is not None else 0.0
    if record is None:
        # Its media need not have connected, or not long before the server died.
        assert lived_s <= (loss_max_s if killed else 0), f"no record of a session that lived {lived_s:.3f} s: {stay}"
        found.unrecorded += 1
        return
    duration_s, reason = record["duration_ms"] / 1000, record["end_reason"]
    about = f"{duration_s:.3f} s recorded, {lived_s:.3f} to {last - stay.answered:.3f} s lived, {reason}, {stay}"
    assert duration_s <= last - stay.answered, f"too long: {about}"
    found.margin_s = min(found.margin_s, last - stay.answered - duration_s)
    if reason in ("client_left", "server_shutdown"):
        assert stay.leaving is not None if reason == "client_left" else killed, f"it never left: {about}"
        # Whole milliseconds are recorded; a shard that stood still between looking at its clock and at its commands ends
        # them by the clock.
        assert duration_s >= lived_s - 0.001 - (loss_max_s - LOSS_MAX_S), f"an ended session lost time: {about}"
        found.ended += 1
        return
    assert reason == "server_crash" and killed, about
    assert stay.left is None or killed[0] - stay.left < WRITING_S + loss_max_s - LOSS_MAX_S, f"its end was not written: {about}"
    assert duration_s >= lived_s - loss_max_s, f"too short: {about}"
    found.crashed += 1
    if begun is not None:
        found.losses.append(lived_s - duration_s)
        found.loss_s = max(found.loss_s, lived_s - duration_s)
        found.loss_at_most_s = max(found.loss_at_most_s, last - stay.answered - duration_s)
