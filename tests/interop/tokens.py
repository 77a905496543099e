"""Tokens of livekit-server-sdk and of PyJWT: what is taken, what is refused, and that the log repeats none of it.

Each token is tried at both doors: the API, as a map service, and `POST /v1/sessions`, as a client with a real offer.
"""

import asyncio
import base64
import json
import pathlib
import time
import warnings

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from own_server import OwnServer
from server import KEY, SECRET

HERE = pathlib.Path(__file__).parent
OFFER = HERE.parent.joinpath("offers", "chromium_plain_vp8.sdp").read_text()
OTHER_KEY, OTHER_SECRET = "othermap", "the-secret-of-another-map-service"
ROOM = "hall"
UNAUTHORIZED = '{result="unauthorized"}'
LEEWAY_S = 30  # between the clocks of a token's maker and the server

SERVER_GRANT = {"roomCreate": True, "roomList": True, "roomAdmin": True}
JOIN_GRANT = {"roomJoin": True, "room": ROOM}

# What a map service may do with each grant: method, path, body, status.
SERVER_CALLS = [
    ({"roomCreate": True}, "POST", "/v1/rooms", {}, 201),
    ({"roomList": True}, "GET", "/v1/rooms", None, 200),
    ({"roomAdmin": True, "room": ROOM}, "GET", f"/v1/rooms/{ROOM}/participants", None, 200),
    ({"roomAdmin": True, "room": ROOM}, "POST", f"/v1/rooms/{ROOM}/tokens", {"identity": "p-1"}, 201),
    ({"roomAdmin": True}, "GET", "/v1/usage", None, 200),
    ({"roomAdmin": True, "room": "cellar"}, "GET", f"/v1/rooms/{ROOM}/participants", None, 403),
    ({"roomList": True}, "GET", "/v1/usage", None, 403),
    (JOIN_GRANT, "GET", "/v1/rooms", None, 403),
]


async def livekit(orders):
    """Tokens as livekit-server-sdk mints them, of orders as mint.mjs takes them."""
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "mint.mjs"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    orders = [{"key": KEY, "secret": SECRET, **order} for order in orders]
    output, _ = await asyncio.wait_for(process.communicate(json.dumps(orders).encode()), 30)
    assert process.returncode == 0, "mint.mjs failed; is tests/interop/node_modules there?"
    return json.loads(output)


def now():
    return int(time.time())


def pyjwt(grant, secret=SECRET, algorithm="HS256", without=(), **claims):
    """A token as PyJWT mints it: `claims` over the usual ones, less those of `without`."""
    all_claims = {"iss": KEY, "sub": "p-7f3a", "nbf": now(), "exp": now() + 300, "video": grant, **claims}
    with warnings.catch_warnings():
        # HS512 wants a longer secret; that is not what this token is refused for.
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        return jwt.encode({key: value for key, value in all_claims.items() if key not in without}, secret, algorithm)


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(token, **header):
    """The token under another header, its signature as it was."""
    return ".".join([encoded({"typ": "JWT", **header}), *token.split(".")[1:]])


def with_claims(token, **claims):
    """The token with claims added, its signature as it was."""
    header, payload, signature = token.split(".")
    before = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return ".".join([header, encoded({**before, **claims}), signature])


def flipped(token):
    """The token with one bit of its signature changed: not of the last character, where some bits mean nothing."""
    at = len(token) - 10
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


def pem(private_key):
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


async def refused_tokens(grant):
    """What is wrong, a token of that kind with this grant, and the error's code."""
    good = pyjwt(grant)
    rsa_key = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    ec_key, ed_key = pem(ec.generate_private_key(ec.SECP256R1())), pem(ed25519.Ed25519PrivateKey.generate())
    invalid = {
        "alg none": pyjwt(grant, secret=None, algorithm="none"),
        "alg none with the signature left": with_header(good, alg="none"),
        "alg None": with_header(good, alg="None").rsplit(".", 1)[0] + ".",
        "alg left out": with_header(good),
        "alg hs256": with_header(good, alg="hs256"),
        "HS384": pyjwt(grant, algorithm="HS384"),
        "HS512": pyjwt(grant, algorithm="HS512"),
        "RS256": pyjwt(grant, secret=rsa_key, algorithm="RS256"),
        "PS256": pyjwt(grant, secret=rsa_key, algorithm="PS256"),
        "ES256": pyjwt(grant, secret=ec_key, algorithm="ES256"),
        "EdDSA": pyjwt(grant, secret=ed_key, algorithm="EdDSA"),
        "HS256 that says RS256": with_header(good, alg="RS256"),
        "no exp": pyjwt(grant, without=["exp"]),
        "exp null": pyjwt(grant, exp=None),
        "exp as text": with_claims(good, exp="soon"),
        "not valid yet": pyjwt(grant, nbf=now() + LEEWAY_S + 30),
        "no iss": pyjwt(grant, without=["iss"]),
        "a key that nobody has": pyjwt(grant, iss="nobody"),
        "a secret that nobody has": pyjwt(grant, secret="a-secret-that-nobody-has-configured"),
        "another tenant's secret": pyjwt(grant, secret=OTHER_SECRET),
        "one character of the signature changed": flipped(good),
        "the signature cut": good[:-8],
        "no signature": good.rsplit(".", 1)[0] + ".",
        "a claim added": with_claims(good, video={**SERVER_GRANT, **grant}, sub="p-admin"),
        "too long": pyjwt(grant, padding="x" * 16384),
    }
    expired = {
        "expired": pyjwt(grant, exp=now() - LEEWAY_S - 10, nbf=now() - 600),
        "expired in 1970": pyjwt(grant, exp=1, nbf=0),
    }
    order = {"identity": "p-7f3a", "grant": grant}
    late, foreign = await livekit([{**order, "ttl": "-5m"}, {**order, "secret": OTHER_SECRET}])
    invalid["livekit-server-sdk with another tenant's secret"] = foreign
    # It dates tokens from now, so this one begins after its end.
    expired["livekit-server-sdk, expired"] = late
    return [(what, token, code) for code, tokens in (("invalid_token", invalid), ("token_expired", expired))
            for what, token in tokens.items()]  # fmt: skip


class Doors:
    """Where tokens are shown, and which were."""

    def __init__(self, server):
        self.server = server
        self.shown = []

    async def call(self, token, method, path, body=None):
        """An API call with a token; status, headers, text."""
        self.shown.append(token)
        headers = {"Authorization": f"Bearer {token}"}
        async with self.server.http.request(method, self.server.url + path, json=body, headers=headers) as answer:
            return answer.status, answer.headers, await answer.text()

    async def join(self, token, path="/v1/sessions"):
        """A join with a token and a real offer; status, headers, text."""
        self.shown.append(token)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        async with self.server.http.post(self.server.url + path, data=OFFER, headers=headers) as answer:
            return answer.status, answer.headers, await answer.text()

    async def leave(self, location, token=None):
        """The status of a DELETE of the session, with a token if there is one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.server.http.delete(self.server.url + location, headers=headers) as answer:
            return answer.status


def check_refusal(what, token, code, answer):
    status, headers, text = answer
    assert status == 401, f"{what}: {status} {text}"
    problem = json.loads(text)
    assert problem["code"] == code and problem["status"] == 401, f"{what}: {text}"
    assert headers["Content-Type"] == "application/problem+json", f"{what}: {headers}"
    assert "Bearer" in headers.get("WWW-Authenticate", ""), f"{what}: no WWW-Authenticate"
    repeated = [part for part in token.split(".") if part and part in text + str(headers)]
    assert not repeated, f"{what}: the answer repeats the token"


async def check_taken_at_the_api(doors):
    """Each grant opens what it should and no more, whoever minted it."""
    by_livekit = await livekit([{"identity": "p-map", "grant": grant} for grant, *_ in SERVER_CALLS])
    by_pyjwt = [pyjwt(grant, without=["sub", "nbf"]) for grant, *_ in SERVER_CALLS]
    for minter, tokens in (("livekit-server-sdk", by_livekit), ("PyJWT", by_pyjwt)):
        for token, (grant, method, path, body, expected) in zip(tokens, SERVER_CALLS, strict=True):
            status, _, text = await doors.call(token, method, path, body)
            assert status == expected, f"{minter}: {method} {path} with {grant}: {status} {text}"


async def check_taken_at_the_join(doors):
    """Whoever minted it, the participant is who the token says, and may do what it says."""
    person = {"name": "Zoë ✓", "metadata": "m" * 200, "attributes": {"hat": "red"}}
    grant = {**JOIN_GRANT, "canPublishData": False, "hidden": True}
    [by_livekit] = await livekit([
        {"identity": "p-1", **person, "grant": {**grant, "canPublishSources": ["CAMERA", "SCREEN_SHARE_AUDIO"]}},
    ])  # fmt: skip
    sources = ["camera", "screen_share_audio"]
    by_pyjwt = pyjwt({**grant, "canPublishSources": sources}, sub="p-2", **person, aud="a map", unknown=[1])
    nearly_expired = pyjwt(JOIN_GRANT, sub="p-3", exp=now() - LEEWAY_S // 2, nbf=now() - 600)
    for token, identity, path in ((by_livekit, "p-1", "/v1/sessions"), (by_pyjwt, "p-2", "/whip")):
        status, headers, text = await doors.join(token, path)
        assert status == 201, f"{identity} at {path}: {status} {text}"
        found = await doors.server.api("GET", f"/v1/rooms/{ROOM}/participants/{identity}")
        assert {key: found[key] for key in person} == person, found
        grants = found["grants"]
        assert grants["canPublishData"] is False and grants["hidden"] is True and grants["canSubscribe"] is True, grants
        assert sorted(grants["canPublishSources"]) == sources, grants
        # The URL is enough to leave; a token that comes with it has to be one, and theirs.
        for other, expected in ((flipped(token), 401), (nearly_expired, 403), (token, 200), (token, 404)):
            assert await doors.leave(headers["Location"], other) == expected, f"{identity}: {expected}"
    status, headers, text = await doors.join(nearly_expired)
    assert status == 201, f"expired within the leeway: {status} {text}"
    assert await doors.leave(headers["Location"]) == 200


async def check_other_rights(doors):
    """Good tokens that are not for this."""
    of_webhook = pyjwt(None, without=["video", "sub"], sha256="c2hh")
    of_other = pyjwt(JOIN_GRANT, secret=OTHER_SECRET, iss=OTHER_KEY)
    for what, token, expected in (
        ("a server's", pyjwt(SERVER_GRANT), (403, "forbidden")),
        ("one for no room", pyjwt({"roomJoin": True}), (403, "forbidden")),
        ("one without grants, as webhooks carry it", of_webhook, (403, "forbidden")),
        ("one for another tenant's room", of_other, (404, "room_not_found")),
        ("one without an identity", pyjwt(JOIN_GRANT, without=["sub"]), (401, "invalid_token")),
    ):
        status, _, text = await doors.join(token)
        assert (status, json.loads(text)["code"]) == expected, f"a join with {what}: {status} {text}"
    status, _, text = await doors.call(of_webhook, "GET", "/v1/rooms")
    assert status == 403, f"a webhook's token at the API: {status} {text}"


def check_log(doors):
    """Nothing of any token is in the log, though it says all it can."""
    log = doors.server.log_bytes().decode(errors="replace")
    assert "TRACE" in log and "request refused" in log, "the log is not as talkative as it should be"
    for token in doors.shown:
        for part in token.split("."):
            assert len(part) < 8 or part not in log, f"the log has this of a token: {part[:40]}…"
    claims = [claim for claim in ("p-7f3a", "p-admin", "Zoë", "mmmmmmmm") if claim in log]
    assert not claims, f"the log has these claims: {claims}"


async def tokens():
    """The case: see above."""
    environment = {"STUBE__LOG__LEVEL": "trace", f"STUBE__KEYS__{OTHER_KEY}": OTHER_SECRET}
    async with OwnServer(**environment) as server:
        # It outlives those who come and go here, however slow the machine is.
        await server.api("POST", "/v1/rooms", {"name": ROOM, "departure_timeout_s": 3600}, expect=(201,))
        doors = Doors(server)
        await check_taken_at_the_api(doors)
        await check_taken_at_the_join(doors)
        await check_other_rights(doors)
        for what, token, code in await refused_tokens(SERVER_GRANT):
            check_refusal(f"{what}, at the API", token, code, await doors.call(token, "GET", "/v1/rooms"))
        before = await server.metric("stube_joins_total", UNAUTHORIZED)
        refused = await refused_tokens(JOIN_GRANT)
        for what, token, code in refused:
            check_refusal(f"{what}, at the join", token, code, await doors.join(token))
        assert await server.participants(ROOM) == {}, "somebody came in"
        assert await server.metric("stube_joins_total", UNAUTHORIZED) == before + len(refused)
        check_log(doors)
        print(f"    {len(doors.shown)} tokens shown, {len(refused)} kinds refused at each door")
