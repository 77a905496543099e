"""Events that wait for a webhook when their person is erased: they are told, and no longer of whom."""

import asyncio
import contextlib
import json

from aiohttp import web

from own_server import OwnServer, receiver
from server import until
from tokens import OFFER, pyjwt

REST_S = 4  # that the receiver asks for; in it somebody comes, goes and is erased
PERSON = "p-erased"


class RestingReceiver:
    """Answers 429 to the event after the first, once, and takes all else."""

    def __init__(self):
        self.came = []

    async def take(self, request):
        self.came.append(json.loads(await request.read()))
        if len(self.came) == 2:
            return web.Response(status=429, headers={"Retry-After": str(REST_S)})
        return web.Response(status=204)

    def told(self):
        """The identities of the events so far that are about a participant."""
        return [event["participant"]["identity"] for event in self.came if "participant" in event]


async def come_and_go(server, room):
    """A join whose media never connects, and its end: an event about a person, without a call."""
    token = pyjwt({"roomJoin": True, "room": room}, sub=PERSON)
    _, session = await server.post_offer("/v1/sessions", token, OFFER)
    await server.delete(session)


async def erased_before_it_is_sent():
    """The case: see above."""
    resting = RestingReceiver()
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(receiver(resting.take))
        section = f'[[webhook]]\nurl = "{url}"\nsecret = "a plain secret, of the map service"\n'
        server = await stack.enter_async_context(OwnServer(section))

        async def came(number):
            await until(lambda: asyncio.sleep(0, len(resting.came) >= number), 30, f"{number} events came")

        await server.open_room("hall")
        await came(1)
        await server.open_room("cellar")
        await came(2)
        await come_and_go(server, "hall")

        async def waits():
            return await server.metric("stube_webhook_outbox_rows") == 2

        await until(waits, 10, "the event about the person waits behind the other one")
        # The sender looks every second at what is due, and what it has seen it keeps.
        await asyncio.sleep(1.5)
        erased = await server.api("DELETE", f"/v1/subjects/{PERSON}")
        assert erased["events"] == 1, erased
        assert len(resting.came) == 2, "it was sent before the erasure, so this proves nothing"
        await came(4)
        assert resting.told() == [None], f"erased while the event waited, and told all the same: {resting.told()}"
