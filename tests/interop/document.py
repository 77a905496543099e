"""The server against its own OpenAPI document: schemathesis invents requests, right and wrong ones, and judges answers."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import pathlib
import sys
import time

from server import KEY, SECRET

SEED = 20261122  # the same requests on every run
HERE = pathlib.Path(__file__).parent

# Every check there is but three. positive_data_acceptance: a request that fits the schemas can still have a cursor of
# nowhere, a key that was used, or 1.0 for 1, which JSON Schema takes for the same and the server does not.
# ensure_resource_availability: rooms nobody comes to end by themselves. object_level_authorization: needs two users.
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
    "allow_header_conformance", "use_after_free", "ignored_auth",
]  # fmt: skip


def token(video, **claims):
    """A JWT made without the server's own code."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"iss": KEY, "exp": int(time.time()) + 600, "video": video, **claims}
    signed = part(b'{"alg":"HS256"}') + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest())).decode()


async def schemathesis(server, authorization, examples, *options):
    # One worker: in Python 3.11.2 two threads that read source code at a time break each other (AST constructor recursion).
    headers = ["--header", f"Authorization: Bearer {authorization}"] if authorization else []
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", server.url + "/v1/openapi.json", *headers,
        "--checks", ",".join(CHECKS), "--seed", str(SEED), "--max-examples", str(examples), "--workers", "1",
        "--request-timeout", "10", "--continue-on-failure", "--no-color", "--warnings", "off",
        "--generation-database", "none", *options,
    ]  # fmt: skip
    run = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=server.folder.name, env={**os.environ, "SCHEMATHESIS_HOOKS": "sdp_bodies", "PYTHONPATH": str(HERE)})
    try:
        output = (await run.communicate())[0].decode()
    finally:
        if run.returncode is None:
            run.kill()
    summary = [line.strip() for line in output.splitlines() if "generated" in line or "passed" in line]
    print(f"    {'; '.join(summary[-2:])}")
    assert run.returncode == 0, output[-20_000:]


async def as_map_service(server, _):
    """All that a server may. A stream of events has no end, so it is looked at by itself."""
    everything = token({"roomCreate": True, "roomList": True, "roomAdmin": True})
    await schemathesis(server, everything, 12, "--exclude-operation-id", "streamEvents", "--exclude-tag", "Sessions")
    for credentials, status, media_type in [(everything, 200, "text/event-stream"),
                                            ("nobody", 401, "application/problem+json")]:
        async with server.http.get(server.url + "/v1/events", headers={"Authorization": f"Bearer {credentials}"}) as answer:
            assert (answer.status, answer.content_type) == (status, media_type), answer


async def as_participant(server, room):
    """Joining, WHIP and WHEP; each session replaces the one before."""
    joining = token({"roomJoin": True, "room": room}, sub="p-7f3a")
    await schemathesis(server, joining, 25, "--include-tag", "Sessions")


async def as_nobody(server, _):
    """Without credentials, where nothing but refusals can come."""
    await schemathesis(server, None, 6)
