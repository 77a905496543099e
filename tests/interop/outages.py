"""A ledger that cannot be written in the midst of calls: a full disk, a read-only one, PostgreSQL stopped. Calls go on,
/readyz and metrics say so, and once it works again nothing is lost: every record and every sum is exact.

    STUBE_BIN=target/debug/stube .venv/bin/python tests/interop/outages.py [CASE…]

Disks need root (or sudo) and a mount namespace of their own; `postgres` needs Debian's package postgresql.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

from ledger_server import CHECKPOINT_S, TENANTS, LedgerServer, NotReady
from reckoning import check_stays, check_sums, read
from witness import LIGHT, Load, Witness, settled

ROOMS, PARTICIPANTS = 3, 4  # of each of the two tenants: 24 sessions
OUTAGE_S = 4.0
NOTICE_S = 4.0  # until the server has noticed: a checkpoint and a try, and more for a slow machine
MEND_S = 8.0  # until it has written again
DISK = "16m"
DELIVERED_MIN = 0.99  # of what was said; what is on its way when it ends is missing
LOST_MAX = 0  # packets, of all loads: an outage of the ledger is nothing to calls


class Full:
    """A small tmpfs without a byte left."""

    name = "disk-full"

    async def prepare(self, place):
        self.place = place
        run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place)

    async def begin(self):
        # dd says itself that there is no space left: that is what is wanted of it.
        command = ["dd", "if=/dev/zero", f"of={self.place}/filler", "bs=4k"]
        filler = subprocess.run(command, capture_output=True, text=True)
        assert "No space left" in filler.stderr, filler.stderr
        assert shutil.disk_usage(self.place).free == 0

    async def end(self):
        pathlib.Path(self.place, "filler").unlink()

    async def clean_up(self):
        run("umount", "--lazy", self.place)


class Frozen:
    """An ext4 whose files refuse to be written and then do not: EPERM, for while the server has them open `remount,ro`
    answers EBUSY, and what `disk-read-only` does cannot be undone."""

    name = "files-read-only"

    async def prepare(self, place):
        self.place = place
        self.image = tempfile.NamedTemporaryFile(prefix="stube-disk-")
        os.truncate(self.image.name, 64 << 20)
        run("mkfs.ext4", "-q", "-O", "^has_journal", self.image.name)
        run("mount", "-o", "loop,errors=remount-ro", self.image.name, place)

    def files(self):
        # Not `-shm`, which is mapped: no file system that turns read-only takes mapped pages away, as `chattr` would.
        return [pathlib.Path(self.place, name) for name in ("stube.db", "stube.db-wal")]

    async def begin(self):
        run("chattr", "+i", *self.files())

    async def end(self):
        run("chattr", "-i", *self.files())

    async def clean_up(self):
        run("umount", "--lazy", self.place)
        self.image.close()


class Stopped:
    """A PostgreSQL of its own that is cut off as by a power failure and started again."""

    name = "postgres"

    async def prepare(self, place):
        versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        assert versions, "install Debian's package postgresql"
        self.programs = versions[-1]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stube-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgres://stube@127.0.0.1:{self.port}/postgres"
        self.control("initdb", "-D", "data", "-U", "stube", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        await self.end()

    def control(self, program, *arguments):
        command = [self.programs / program, *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        with open(self.folder / "control", "a+b") as said:
            subprocess.run(command, check=True, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    async def begin(self):
        await asyncio.to_thread(self.control, "pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    async def end(self):
        options = f"-h 127.0.0.1 -p {self.port} -k ''"
        await asyncio.to_thread(self.control, "pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    async def clean_up(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            await self.begin()
        shutil.rmtree(self.folder)


def run(*command):
    subprocess.run([str(word) for word in command], check=True)


async def within(seconds, what, condition):
    """Waits for a condition; the seconds it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() < began + seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def outage(fault, state):
    """Calls before, during and after; some that begin and end while nothing can be written."""
    url = getattr(fault, "url", "sqlite://stube.db")
    async with LedgerServer(state, url) as server, Witness(server) as witness:
        loads = [
            await Load(witness, tenant).start(ROOMS, PARTICIPANTS, *LIGHT, "--churn", churn, "--warmup", "0")
            for tenant, churn in zip(TENANTS, ("1", "0"), strict=True)]
        try:
            await settled(witness, len(TENANTS) * ROOMS * PARTICIPANTS, loads)
            await asyncio.sleep(1.5)
            await fault.begin()
            await during(server, witness)
            await fault.end()
            await mended(server)
            await asyncio.sleep(1.5)
            reports = [await load.report() for load in loads]
        except BaseException:
            for load in loads:
                await load.kill()
            raise
        await check_whole(server, witness, reports)


async def during(server, witness):
    """What the server says and does meanwhile."""
    began = time.monotonic()

    async def failing():
        return (await server.readiness()) == (503, "the ledger cannot be written")

    noticed_s = await within(NOTICE_S, "/readyz says that the ledger cannot be written", failing)
    brief = await Load(witness, "alpha").start(1, 3, *LIGHT, "--warmup", "0", duration=2)
    report = await brief.report(end=False)
    assert report["joins"]["failed"] == 0 and report["lost"] == 0, report
    stays = [stay for stay in witness.stays.values() if stay.left and stay.seen and stay.answered > began]
    assert len(stays) >= 3, "sessions began and ended meanwhile"
    await asyncio.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))
    assert await failing(), "/readyz says so as long as it lasts"
    waiting = await server.figure("stube_ledger_rows_waiting")
    failures = await server.figure("stube_ledger_write_failures_total")
    age = await server.figure("stube_ledger_checkpoint_age_seconds")
    assert waiting > 0 and failures >= 2 and age >= OUTAGE_S - 2, (waiting, failures, age)
    assert await server.figure("stube_ledger_rows_lost_total") == 0
    status, _ = await server.ask("alpha", "GET", "/v1/records?limit=1")
    said = [line for line in server.log_text().splitlines() if "ERROR" in line]
    assert len(said) == 1 and "records wait in memory" in said[0], said
    print(
        f"    noticed after {noticed_s:.1f} s; after {OUTAGE_S:.0f} s {waiting:.0f} rows wait, {failures:.0f} writes "
        f"failed, checkpoint age {age:.1f} s; {len(stays)} sessions began and ended; GET /v1/records: {status}\n"
        f"    {said[0]}")


async def mended(server):
    async def works():
        return (await server.readiness())[0] == 200

    mended_s = await within(MEND_S, "/readyz is well again", works)
    failures = await server.figure("stube_ledger_write_failures_total")
    await asyncio.sleep(2 * CHECKPOINT_S)
    assert await server.figure("stube_ledger_write_failures_total") == failures
    assert await server.figure("stube_ledger_rows_lost_total") == 0
    assert await server.figure("stube_ledger_checkpoint_age_seconds") < 3 * CHECKPOINT_S
    assert "the ledger is written again" in server.log_text()
    print(f"    well again after {mended_s:.1f} s")


async def check_whole(server, witness, reports):
    """Nobody noticed, and every account is exact."""
    lost = sum(report["lost"] for report in reports)
    failed = sum(report["joins"]["failed"] for report in reports)
    delivered = reports[-1]["voice_delivery_ratio"]  # it is known without churn
    assert lost <= LOST_MAX and failed == 0, f"{lost} packets lost, {failed} joins failed"
    assert delivered >= DELIVERED_MIN, f"{delivered} of what was said was heard"

    async def all_over():
        return await server.figure("stube_sessions") == 0 and await server.figure("stube_ledger_rows_waiting") == 0

    await within(10, "all have left and nothing waits", all_over)
    books = await read(server)
    check_sums(server, books)
    found = check_stays(books, witness.stays)
    await check_bytes(server, books)
    print(
        f"    {found.stays} sessions, {found.ended} exact records, {found.unrecorded} never connected; "
        f"{sum(report['received'] for report in reports)} packets received, {lost} lost, {failed} joins failed, "
        f"{delivered} of what was said was heard")


async def check_bytes(server, books):
    """The bytes of the records against the packets the media path counted."""
    for direction, key in (("in", "rx_bytes"), ("out", "tx_bytes")):
        chosen = lambda figures: sum(value for labels, value in figures.items() if f'direction="{direction}"' in labels)
        packets, payload, datagrams = [
            chosen(await server.metrics(name))
            for name in ("stube_rtp_packets_total", "stube_rtp_bytes_total", "stube_datagrams_total")]
        counted = sum(record[key] for tenant in TENANTS for record in books.records[tenant])
        # Headers, extensions and tags of RTP; and up to an MTU for each datagram of STUN, DTLS and RTCP.
        least, most = payload + 28 * packets, payload + 80 * packets + 1500 * (datagrams - packets)
        print(f"    {key} {counted}: RTP alone is {payload:.0f} bytes in {packets:.0f} of {datagrams:.0f} datagrams")
        assert least <= counted <= most, f"{key}: {counted}, not within {least} and {most}"


async def does_not_start(server, what):
    """On a read-only disk it ends at once, and says what to do."""
    with contextlib.suppress(NotReady):
        await server.start()
        raise AssertionError("it started on a read-only disk")
    said = server.log_text().splitlines()[-1]
    print(f"    {what}: status {server.process.returncode}, {said}")
    assert "mount it writable" in said and server.process.returncode == 1, said


async def turns_read_only(place):
    """The file system itself turns read-only (EROFS), for good: a stop still ends, a start says what is wrong, and on a
    disk that was mended records end at their last checkpoint."""
    fault = Frozen()
    await fault.prepare(place)
    try:
        device = subprocess.check_output(["findmnt", "-n", "-o", "SOURCE", place], text=True).strip()
        async with LedgerServer(place) as server, Witness(server) as witness:
            loads = [await Load(witness, tenant).start(1, 4, *LIGHT, "--warmup", "0") for tenant in TENANTS]
            try:
                await settled(witness, 8, loads)
                await asyncio.sleep(2.5)
                written = time.monotonic()
                pathlib.Path("/sys/fs/ext4", pathlib.Path(device).name, "trigger_fs_error").write_text("1")

                async def failing():
                    return (await server.readiness()) == (503, "the ledger cannot be written")

                noticed_s = await within(NOTICE_S, "/readyz says that the ledger cannot be written", failing)
                await asyncio.sleep(2)
                assert witness.live() == 8, "calls go on"
                reports = [await load.report() for load in loads]
            finally:
                for load in loads:
                    await load.kill()
            assert all(report["lost"] == 0 and report["joins"]["failed"] == 0 for report in reports)
            began = time.monotonic()
            status, ended = await server.stop(), time.monotonic()
            print(f"    noticed after {noticed_s:.1f} s; stopped with status {status} in {ended - began:.1f} s")
            assert "could not be written at the end" in server.log_text()
            await does_not_start(server, "start")
            # A disk that is mounted read-only from the start, then a writable one.
            run("umount", place)
            run("mount", "-o", "loop,ro", fault.image.name, place)
            await does_not_start(server, "start on one mounted so")
            run("umount", place)
            run("mount", "-o", "loop", fault.image.name, place)
            await server.start()
            books = await read(server)
            check_sums(server, books)
            stays = {key: dataclasses.replace(stay, leaving=None, left=None) for key, stay in witness.stays.items()}
            found = check_stays(books, stays, (written, ended))
            ends = f"{found.crashed} records end at their last checkpoint, {found.loss_s:.2f} s or less too early"
            print(f"    mended: {ends}")
    finally:
        await fault.clean_up()


async def with_fault(fault, place):
    try:
        await fault.prepare(place)
        await outage(fault, place)
    finally:
        await fault.clean_up()


CASES = {
    "disk-full": (True, lambda place: with_fault(Full(), place)),
    "files-read-only": (True, lambda place: with_fault(Frozen(), place)),
    "disk-read-only": (True, turns_read_only),
    "postgres": (False, lambda place: with_fault(Stopped(), place)),
}


async def one(name):
    with tempfile.TemporaryDirectory(prefix="stube-outage-") as place:
        await asyncio.wait_for(CASES[name][1](place), 120)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = options.parse_args()
    if options.inside:  # a mount namespace of its own, which ends with this process
        asyncio.run(one(options.cases[0]))
        return 0
    passed = failed = 0
    for name, (mounts, _) in CASES.items():
        if options.cases and name not in options.cases:
            continue
        began = time.monotonic()
        try:
            if mounts:
                root = [] if os.geteuid() == 0 else ["sudo", "--preserve-env=STUBE_BIN"]
                alone = ["unshare", "--mount", "--propagation", "private"]
                run(*root, *alone, sys.executable, "-u", __file__, "--inside", name)
            else:
                asyncio.run(one(name))
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {name} ({time.monotonic() - began:.1f} s): {error}", flush=True)
            if not isinstance(error, subprocess.CalledProcessError):
                traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
