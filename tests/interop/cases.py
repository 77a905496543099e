"""The cases: most publish or fail to, in rooms of one running server; the others have servers of their own."""

import asyncio
import contextlib
import pathlib
import sys
import tempfile
import time
import traceback

import imageio_ffmpeg
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

import acme
import canary
import examples
import monitoring
import operate
import tokens
import unsent
import webhooks
from aiortc_peer import TONE_HZ, Player, only_srtp_profile, publish, srtp_profiles
from document import as_map_service, as_nobody, as_participant
from server import CONNECT_TIMEOUT_S, Server, until

HERE = pathlib.Path(__file__).parent


@contextlib.asynccontextmanager
async def player(server, room, identity):
    """A WHEP player of one participant, connected."""
    playing = Player()
    try:
        await playing.play(server, await server.token(room, "viewer"), identity)
        yield playing
    finally:
        await playing.close()


async def check_played(playing):
    await playing.expect(pictures=20, sounds=60)
    assert playing.contrast() > 80, f"not the published picture: contrast {playing.contrast():.0f}"
    pitch = playing.pitch_hz()
    assert abs(pitch - TONE_HZ) < 15, f"not the published tone: {pitch:.0f} Hz"


def check_codecs(playing, video):
    assert playing.codecs - {"video/rtx"} == {"audio/opus", f"video/{video}"}, playing.codecs


async def empties(server, room):
    """Once everybody has left, the server remembers nobody."""
    async def gone():
        return not await server.participants(room)

    async def no_sessions():
        return sum((await server.metrics("stube_sessions")).values()) == 0

    await until(gone, 5, f"the room is empty; it has {await server.participants(room)}")
    await until(no_sessions, 5, "stube_sessions is 0")


async def aiortc_to_aiortc(server, room, codec):
    publisher, session = await publish(server, await server.token(room, "camera"), codec)
    try:
        async with player(server, room, "camera") as playing:
            await check_played(playing)
            check_codecs(playing, codec)
            await server.delete(playing.session)
        assert (await server.participants(room)) == {"camera": "active"}
        await server.delete(session)
        await server.delete(session, expect=404)
    finally:
        await publisher.close()
    await empties(server, room)


async def srtp_profile(server, room, name):
    """libsrtp and the server open what the other has sealed with this profile, sound and picture, both ways."""
    with only_srtp_profile(name):
        publisher, session = await publish(server, await server.token(room, "camera"), "vp8")
        try:
            async with player(server, room, "camera") as playing:
                assert srtp_profiles(publisher) == srtp_profiles(playing.peer) == {name}
                await check_played(playing)
                await server.delete(playing.session)
            await server.delete(session)
        finally:
            await publisher.close()
    await empties(server, room)


async def ffmpeg_to_aiortc(server, room, *whip_options):
    """FFmpeg's offer says `setup:passive`, so the server is the DTLS client, unless it is told otherwise."""
    token = await server.token(room, "ffmpeg")
    video = "color=c=0xd2d2d2:size=160x180:rate=15[l];color=c=0x282828:size=160x180:rate=15[r];[l][r]hstack"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "warning",
        "-re", "-f", "lavfi", "-i", video, "-re", "-f", "lavfi", "-i", f"sine=frequency={TONE_HZ}:sample_rate=48000",
        "-pix_fmt", "yuv420p", "-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast",
        "-tune", "zerolatency", "-bf", "0", "-g", "15", "-b:v", "300k", "-c:a", "libopus", "-ar", "48000", "-ac", "2",
        "-t", "60", "-f", "whip", *whip_options, "-authorization", token, server.url + "/whip"]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)

    async def connected():
        assert process.returncode is None, f"FFmpeg ended: {(await process.stdout.read()).decode()[-2000:]}"
        return (await server.participants(room)).get("ffmpeg") == "active"

    try:
        await until(connected, 15, "FFmpeg is connected")
        async with player(server, room, "ffmpeg") as playing:
            await check_played(playing)
            check_codecs(playing, "h264")
        # Ended properly, FFmpeg deletes its session; that must not be the only way a session ends.
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def gone():
        return "ffmpeg" not in await server.participants(room)

    await until(gone, 40, "FFmpeg has left")


async def gstreamer_is_refused(server, room):
    """GStreamer 1.22 makes RSA certificates, which our DTLS does not take: the session ends by itself, and only it."""
    descriptors = sum((await server.metrics("process_open_fds")).values())
    began = time.monotonic()
    runs = []
    for number in range(3):
        arguments = [f"{server.url}/whip", await server.token(room, f"gst{number}"), str(CONNECT_TIMEOUT_S + 4)]
        runs.append(await asyncio.create_subprocess_exec(
            "/usr/bin/python3", str(HERE / "gst_publisher.py"), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT))

    async def all_joined():
        return len(await server.participants(room)) == 3

    async def all_gone():
        return not await server.participants(room)

    await until(all_joined, 15, f"three GStreamers are joining; {await server.participants(room)}")
    await until(all_gone, CONNECT_TIMEOUT_S + 5, "their sessions have ended by connect timeout")
    print(f"    ended after {time.monotonic() - began:.0f} s, timeout {CONNECT_TIMEOUT_S} s")
    for run in runs:
        output, _ = await asyncio.wait_for(run.communicate(), 30)
        text = output.decode()
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        assert begin in text and "answered" in text, text
        pem = begin + text.split(begin)[1].split(end)[0] + end
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
        assert isinstance(key, rsa.RSAPublicKey), "an ECDSA certificate now: update docs/protocol.md and this case"
        assert "connected" not in text.splitlines(), "it connects now: update docs/protocol.md and this case"
    await empties(server, room)
    now = sum((await server.metrics("process_open_fds")).values())
    assert now <= descriptors + 3, f"file descriptors: {descriptors} before, {now} after"


CASES = {
    "aiortc-vp8": lambda server, room: aiortc_to_aiortc(server, room, "vp8"),
    "aiortc-h264": lambda server, room: aiortc_to_aiortc(server, room, "h264"),
    "srtp-256-gcm": lambda server, room: srtp_profile(server, room, "SRTP_AEAD_AES_256_GCM"),
    "srtp-128-gcm": lambda server, room: srtp_profile(server, room, "SRTP_AEAD_AES_128_GCM"),
    "srtp-128-cm-sha1": lambda server, room: srtp_profile(server, room, "SRTP_AES128_CM_SHA1_80"),
    "ffmpeg-passive": ffmpeg_to_aiortc,
    "ffmpeg-active": lambda server, room: ffmpeg_to_aiortc(server, room, "-whip_flags", "dtls_active"),
    "gstreamer-rsa": gstreamer_is_refused,
    "openapi-map-service": as_map_service,
    "openapi-participant": as_participant,
    "openapi-nobody": as_nobody,
    # Once more: what came before has left the server whole.
    "aiortc-again": lambda server, room: aiortc_to_aiortc(server, room, "vp8"),
}


async def misbehaving_receivers():
    with tempfile.TemporaryDirectory(prefix="stube-receivers-") as folder:
        await webhooks.misbehaving_receivers(folder)


# They configure, kill or erase, so each has a server of its own.
ALONE = {
    "tokens": tokens.tokens,
    "operate": operate.operating,
    "acme": acme.certificates,
    **{f"canary-{mode}": canary.case(mode) for mode in canary.MODES},
    "webhooks": misbehaving_receivers,
    "webhooks-unsent": unsent.erased_before_it_is_sent,
    "monitoring": monitoring.monitoring,
    "examples": examples.examples,
}


# For minutes they do hardly more than wait, which they can beside the others.
PATIENT = {"acme"}


async def passes(name, case):
    """Runs one case and says how it went."""
    began = time.monotonic()
    try:
        await asyncio.wait_for(case(), 300 if name in ALONE else 90)
    except Exception as error:
        print(f"FAILED  {name} ({time.monotonic() - began:.1f} s): {error}")
        traceback.print_exc()
        return False
    print(f"ok      {name} ({time.monotonic() - began:.1f} s)")
    return True


async def in_room(server, name, case):
    await server.open_room(name)
    await case(server, name)


async def main(chosen):
    known = [*CASES, *ALONE]
    if unknown := set(chosen) - set(known):
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = [name for name in known if not chosen or name in chosen]
    results = []
    patient = [asyncio.create_task(passes(name, ALONE[name])) for name in wanted if name in PATIENT]
    if shared := [name for name in wanted if name in CASES]:
        async with Server() as server:
            for name in shared:
                results.append(await passes(name, lambda: in_room(server, name, CASES[name])))
            if not all(results):
                print(f"--- the server's log\n{server.log_text()}")
    for name in wanted:
        if name in ALONE and name not in PATIENT:
            results.append(await passes(name, ALONE[name]))
    results.extend(await asyncio.gather(*patient))
    passed, failed = results.count(True), results.count(False)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
