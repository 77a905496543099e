"""aiortc as a WHIP publisher and a WHEP player, with a picture and a tone that can be recognised after decoding."""

import asyncio
import contextlib
import fractions
import time

import numpy
from aiortc import (
    AudioStreamTrack,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    VideoStreamTrack,
    rtcdtlstransport,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

WIDTH, HEIGHT, FPS = 320, 180, 15
TONE_HZ, RATE_HZ, SAMPLES = 440, 48000, 960


class Picture(VideoStreamTrack):
    """Left half bright, right half dark, and a bar that moves, so that there is something to encode."""

    count = 0
    start = None

    async def recv(self):
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0.0, self.start + self.count / FPS - time.monotonic()))
        pixels = numpy.full((HEIGHT, WIDTH, 3), 40, numpy.uint8)
        pixels[:, : WIDTH // 2] = 210
        bar = self.count * 4 % HEIGHT
        pixels[bar : bar + 8] = 128
        frame = VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts, frame.time_base = self.count * 90000 // FPS, fractions.Fraction(1, 90000)
        self.count += 1
        return frame


class Tone(AudioStreamTrack):
    """A sine at a third of full scale."""

    count = 0
    start = None

    async def recv(self):
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0.0, self.start + self.count * SAMPLES / RATE_HZ - time.monotonic()))
        at = (numpy.arange(SAMPLES) + self.count * SAMPLES) / RATE_HZ
        wave = (numpy.sin(2 * numpy.pi * TONE_HZ * at) * 11000).astype(numpy.int16)
        frame = AudioFrame.from_ndarray(wave[None, :], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self.count * SAMPLES, fractions.Fraction(1, RATE_HZ)
        self.count += 1
        return frame


@contextlib.contextmanager
def only_srtp_profile(name):
    """Peers made meanwhile offer this SRTP protection profile alone."""
    profiles = rtcdtlstransport.SRTP_PROFILES
    rtcdtlstransport.SRTP_PROFILES = [p for p in profiles if p.openssl_profile.decode() == name]
    assert rtcdtlstransport.SRTP_PROFILES, f"this aiortc has no {name}, only {profiles}"
    try:
        yield
    finally:
        rtcdtlstransport.SRTP_PROFILES = profiles


def srtp_profiles(peer):
    """The names of what the handshakes of a connected peer's transports chose."""
    transports = {transceiver.sender.transport for transceiver in peer.getTransceivers()}
    return {transport._ssl.get_selected_srtp_profile().decode() for transport in transports}


async def _connect(server, peer, path, token):
    await peer.setLocalDescription(await peer.createOffer())
    answer, session = await server.post_offer(path, token, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    for _ in range(100):
        if peer.connectionState == "connected":
            return session
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} not connected after 10 s: {peer.connectionState}, ICE {peer.iceConnectionState}")


async def publish(server, token, codec):
    """Publishes picture and tone; the peer and its session's URL."""
    peer = RTCPeerConnection()
    for track in (Tone(), Picture()):
        transceiver = peer.addTransceiver(track, "sendonly")
        if track.kind == "video":
            offered = RTCRtpSender.getCapabilities("video").codecs
            chosen = [c for c in offered if c.mimeType.lower() in (f"video/{codec}", "video/rtx")]
            transceiver.setCodecPreferences(chosen)
    try:
        return peer, await _connect(server, peer, "/whip", token)
    except BaseException:
        await peer.close()
        raise


class Player:
    """Plays one participant by WHEP and keeps what it decodes."""

    def __init__(self):
        self.pictures, self.sounds = [], []
        self.peer = RTCPeerConnection()
        self.tasks = []
        self.codecs = set()  # of the packets that came, not of the answer

        @self.peer.on("track")
        def on_track(track):
            kept = self.pictures if track.kind == "video" else self.sounds
            self.tasks.append(asyncio.ensure_future(self._keep(track, kept)))
            self._note_codecs(next(r for r in self.peer.getReceivers() if r.track is track))

    def _note_codecs(self, receiver):
        handle = receiver._handle_rtp_packet

        async def noting(packet, *rest, **named):
            codec = receiver._RTCRtpReceiver__codecs.get(packet.payload_type)
            self.codecs.add(codec.mimeType.lower() if codec else f"unknown {packet.payload_type}")
            await handle(packet, *rest, **named)

        receiver._handle_rtp_packet = noting

    @staticmethod
    async def _keep(track, kept):
        try:
            while True:
                kept.append(await track.recv())
        except MediaStreamError:
            pass

    async def play(self, server, token, identity):
        for kind in ("audio", "video"):
            self.peer.addTransceiver(kind, "recvonly")
        self.session = await _connect(server, self.peer, f"/whep?participant={identity}", token)

    async def close(self):
        await self.peer.close()
        for task in self.tasks:
            task.cancel()

    async def expect(self, pictures, sounds, seconds=20):
        """Waits for so many decoded frames, which then must show what was published."""
        deadline = time.monotonic() + seconds
        while len(self.pictures) < pictures or len(self.sounds) < sounds:
            have = f"{len(self.pictures)} pictures and {len(self.sounds)} sounds"
            assert time.monotonic() < deadline, f"decoded only {have} in {seconds} s"
            await asyncio.sleep(0.1)

    def contrast(self):
        """How much brighter the left half of the last picture is than the right one."""
        grey = self.pictures[-1].to_ndarray(format="gray").astype(float)
        middle = grey.shape[1] // 2
        return grey[:, : middle - 8].mean() - grey[:, middle + 8 :].mean()

    def pitch_hz(self):
        """The strongest frequency of the last sounds."""
        frames = self.sounds[-25:]
        channels = len(frames[0].layout.channels)
        samples = numpy.concatenate([f.to_ndarray().reshape(-1)[::channels] for f in frames]).astype(float)
        assert numpy.abs(samples).max() > 500, "silence"
        spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples))))
        return numpy.fft.rfftfreq(len(samples), 1 / frames[0].sample_rate)[spectrum.argmax()]
