"""`kill -9` at random moments: no open record after a restart, none too long, none short by more than a checkpoint and
a second, nothing twice, sums that are those of the records, and everyone's leaving told once. Some rounds kill the recovery as well.

    STUBE_BIN=target/debug/stube .venv/bin/python tests/interop/crash.py --rounds 100 [--seed N] [--postgres]
"""

import argparse
import asyncio
import collections
import contextlib
import pathlib
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time

from ledger_server import CHECKPOINT_S, TENANTS, LedgerServer
from outages import Stopped
from reckoning import LOSS_MAX_S, Findings, Standstill, check_events, check_stays, check_sums, query, read
from witness import LIGHT, Load, Witness, settled

ROOMS, PARTICIPANTS = 3, 4  # of each of the two tenants: 24 sessions
WAIT_MAX_S = 4.0  # from when all are there to the kill, at random
CHURN = 2  # sessions of each tenant that leave and join a second meanwhile
RECOVERY_EVERY = 3  # rounds
STOPPING_EVERY = 5  # rounds: a SIGTERM before, as from somebody who then loses patience
PATIENCE_S = 0.15  # at most, at random; stopping takes about half of it
FIRST_STARTS = 10  # kills of a server that is making its database
RECOVERIES_MAX = 3  # kills in a row
EARLY_S = 0.02  # half of the kills of a start come within it, for recovery is among the first deeds
OPEN = "SELECT count(*) FROM sessions WHERE ended_at IS NULL"


class Crash:
    """The rounds, on one state directory."""

    def __init__(self, server, witness, seed):
        self.server, self.witness = server, witness
        self.random = random.Random(seed)
        self.start_s = 0.5
        self.before = {}  # records of earlier rounds, which never change again
        self.all = Findings()
        self.standstill = Standstill(server.state)
        self.fewest = ROOMS * PARTICIPANTS * len(TENANTS)
        self.recoveries = collections.Counter()  # by whether there were open records before and after

    async def round(self, number):
        self.standstill.take()
        loads = [
            await Load(self.witness, tenant).start(ROOMS, PARTICIPANTS, *LIGHT, "--churn", str(CHURN), "--warmup", "0")
            for tenant in TENANTS]
        try:
            await settled(self.witness, len(TENANTS) * ROOMS * PARTICIPANTS, loads)
            wait_s = self.random.uniform(0, WAIT_MAX_S)
            await asyncio.sleep(wait_s)
            live = self.witness.live()
            self.fewest = min(self.fewest, live)
            warning_s = self.random.uniform(0, PATIENCE_S) if number % STOPPING_EVERY == 0 else None
            killed = await self.server.kill(warning_s)
            stood_still_s = self.standstill.take()
            stays = self.witness.forget()
            # Their rooms will be there again, and who joins anew then is none of this round's.
            for load in loads:
                await load.kill()
            kills = await self.recover(number)
        except BaseException:
            for load in loads:
                await load.kill()
            raise
        books = await read(self.server)
        check_sums(self.server, books)
        check_events(self.server)
        found = check_stays(books, stays, killed, stood_still_s)
        self.check_earlier(books, stays)
        self.all.add(found)
        print(
            f"round {number}: killed {wait_s:.2f} s after all had joined; {live} live of {found.stays} sessions; "
            f"{found.crashed} cut off, {found.ended} ended before, {found.unrecorded} unrecorded; "
            f"worst loss {f'{found.loss_s:.3f} s' if found.losses else 'none'}"
            f"{f'; then {kills} starts killed' if kills else ''}"
            f"; machine and disk stood still for {stood_still_s * 1000:.0f} ms"
            f"{'' if warning_s is None else f'; {warning_s * 1000:.0f} ms after SIGTERM'}",
            flush=True)

    def first_starts(self):
        """Before there is anything: kills while the database is being made."""
        for _ in range(FIRST_STARTS):
            self.server.launch_and_kill(self.random.uniform(0, 2 * EARLY_S))
            if self.random.random() < 0.7:  # else the next one goes on from there
                for file in self.server.state.glob("stube.db*"):
                    file.unlink()

    async def recover(self, number):
        """Starts it again, in some rounds after it was killed at that too."""
        kills = self.random.randint(1, RECOVERIES_MAX) if number % RECOVERY_EVERY == 0 else 0
        for _ in range(kills):
            was_open = self.is_open()
            self.server.launch_and_kill(self.random.uniform(0, self.random.choice((EARLY_S, 1.2 * self.start_s))))
            self.recoveries[was_open, self.is_open()] += 1
        self.start_s = await self.server.start()
        return kills

    def is_open(self):
        """Whether the dead server has open records. Looks at a copy of SQLite's files, for looking changes them."""
        if not self.server.database.startswith("sqlite:"):
            return query(self.server, OPEN) != [(0,)]
        with tempfile.TemporaryDirectory() as copy:
            for file in self.server.state.glob("stube.db*"):
                shutil.copy(file, copy)
            with contextlib.closing(sqlite3.connect(pathlib.Path(copy, "stube.db"))) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                return connection.execute(OPEN).fetchall() != [(0,)]

    def check_earlier(self, books, stays):
        """What earlier rounds left is as it was, and whatever is new belongs to this one."""
        now = {record["record_id"]: record for tenant in TENANTS for record in books.records[tenant]}
        for record_id, record in self.before.items():
            assert now.get(record_id) == record, f"a record of an earlier round changed: {record}, {now.get(record_id)}"
        owners = {
            record["record_id"]: (tenant, record["room"], record["identity"])
            for tenant in TENANTS for record in books.records[tenant]}
        strange = [now[new] for new in now.keys() - self.before.keys() if owners[new] not in stays]
        assert not strange, f"records of nobody: {strange}"
        self.before = now


async def on_postgres(rounds, seed, state):
    database = Stopped()
    try:
        await database.prepare(state)
        await crash(rounds, seed, state, database.url)
    finally:
        await database.clean_up()


async def crash(rounds, seed, state, url="sqlite://stube.db"):
    print(f"seed {seed}, checkpoint {CHECKPOINT_S} s, {rounds} rounds")
    began = time.monotonic()
    server = LedgerServer(state, url)
    await server.prepare()
    async with Witness(server) as witness, contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(server)
        test = Crash(server, witness, seed)
        test.first_starts()
        await server.start()
        for number in range(1, rounds + 1):
            try:
                await asyncio.wait_for(test.round(number), 120)
            except BaseException:
                print(f"round {number} of seed {seed} failed; the server's log:\n{server.log_text()}")
                raise
    all_, times = test.all, test.recoveries
    losses = sorted(all_.losses)
    print(
        f"{rounds} rounds in {time.monotonic() - began:.0f} s, at least {test.fewest} live at each kill: "
        f"{all_.stays} sessions, {all_.crashed} cut off, {all_.ended} ended before, {all_.unrecorded} unrecorded; "
        f"{len(test.before)} records, none open, none doubled\n"
        f"starts killed: {times.total()}; {times[True, True]} before the recovery was written, "
        f"{times[True, False]} after it, {times[False, False]} with nothing left to recover\n"
        f"loss in s: median {statistics.median(losses):.3f}, 99 % {losses[len(losses) * 99 // 100]:.3f}, "
        f"worst {all_.loss_s:.3f} (certainly not above {all_.loss_at_most_s:.3f}; allowed {LOSS_MAX_S}); "
        f"least {losses[0]:.3f}; no record above its limit, the nearest {all_.margin_s * 1000:.0f} ms below")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--postgres", action="store_true", help="with a PostgreSQL of its own, which is not killed")
    options = options.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory(prefix="stube-crash-") as state:
        asyncio.run((on_postgres if options.postgres else crash)(options.rounds, seed, state))


if __name__ == "__main__":
    sys.exit(main())
