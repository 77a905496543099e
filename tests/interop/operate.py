"""What an operator does to a running server: SIGHUP after an edit, SIGTERM with a drain, restarts; a real call goes on."""

import asyncio
import contextlib
import signal

import aiohttp

from aiortc_peer import Player, publish
from own_server import OwnServer
from server import KEY, SECRET, until

OTHER = "another-secret-another-secret-another"
DRAIN_S = 3


async def operating():
    async with OwnServer("[shutdown]\ndrain_s = 30\n") as server:
        await reloads(server)
    async with OwnServer(f"[shutdown]\ndrain_s = {DRAIN_S}\n") as server:
        await drains(server)
    async with OwnServer("[shutdown]\ndrain_s = 30\n") as server:
        await patience_ends(server)


async def more(playing):
    """Its media goes on."""
    await playing.expect(len(playing.pictures) + 10, len(playing.sounds) + 30)


async def logged(server, *words):
    return all(word in server.log_text() for word in words)


async def accepts(server, key, secret):
    async with server.http.get(server.url + "/v1/rooms", auth=aiohttp.BasicAuth(key, secret)) as answer:
        assert answer.status in (200, 401), answer.status
        return answer.status == 200


async def reloads(server):
    """A call goes on while keys and the log's level change; a bad file changes nothing, and the log says why."""
    async with in_call(server) as playing:
        good = server.config.read_text()
        server.config.write_text(good.replace("[keys]", f'[keys]\nother = "{OTHER}"') + '[log]\nlevel = "debug"\n')
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: accepts(server, "other", OTHER), 5, "the new key is accepted")
        await until(lambda: logged(server, "read anew"), 5, "the log says so")
        async with server.http.get(server.url + "/v1/rooms"):
            pass
        await until(lambda: logged(server, " DEBUG "), 5, "the level has changed")
        server.config.write_text(good + "[rooms]\nmax_participants = -1\n")
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: logged(server, "rooms.max_participants", "nothing has changed"), 5, "the log says what is wrong")
        assert await accepts(server, "other", OTHER) and await accepts(server, KEY, SECRET)
        server.config.write_text(good)
        server.process.send_signal(signal.SIGHUP)

        async def forgotten():
            return not await accepts(server, "other", OTHER)

        await until(forgotten, 5, "the key is gone")
        await more(playing)
    # Its call has ended: a drain has nothing to wait for.
    server.process.terminate()
    assert await asyncio.wait_for(server.process.wait(), 8) == 0
    await server.run()


async def drains(server):
    """SIGTERM lets a call go on until the deadline, refuses what is new, and the rooms are there after a restart."""
    await server.open_room("cellar")
    async with in_call(server) as playing:
        room = await server.api("GET", "/v1/rooms/hall")
        loop = asyncio.get_running_loop()
        began = loop.time()
        server.process.terminate()

        async def draining():
            async with server.http.get(server.admin + "/readyz") as answer:
                return answer.status == 503 and await answer.text() == "draining\n"

        await until(draining, 2, "/readyz says draining")
        await server.api("POST", "/v1/rooms", {"name": "attic"}, expect=(503,))
        await more(playing)
        status = await asyncio.wait_for(server.process.wait(), DRAIN_S + 6)
        took = loop.time() - began
        assert status == 0 and DRAIN_S - 0.1 <= took <= DRAIN_S + 5, f"status {status} after {took:.1f} s"
    await server.run()
    again = await server.api("GET", "/v1/rooms/hall")
    assert {**again, "call": None, "num_participants": 0, "num_publishers": 0} == {
        **room, "call": None, "num_participants": 0, "num_publishers": 0}, (room, again)
    assert {room["name"] for room in (await server.api("GET", "/v1/rooms"))["rooms"]} == {"hall", "cellar"}
    for record in (await server.api("GET", "/v1/records"))["records"]:
        assert record["final"] and record["end_reason"] == "server_shutdown", record


async def patience_ends(server):
    """A second signal ends the calls at once."""
    async with in_call(server):
        server.process.terminate()
        await asyncio.sleep(0.5)
        server.process.terminate()
        assert await asyncio.wait_for(server.process.wait(), 6) == 0
    await server.run()


@contextlib.asynccontextmanager
async def in_call(server):
    """A publisher, and the player of somebody who watches it, in the room `hall`."""
    await server.open_room("hall")
    publisher, _ = await publish(server, await server.token("hall", "camera"), "vp8")
    playing = Player()
    try:
        await playing.play(server, await server.token("hall", "viewer"), "camera")
        await playing.expect(pictures=5, sounds=10)
        yield playing
    finally:
        await playing.close()
        await publisher.close()
