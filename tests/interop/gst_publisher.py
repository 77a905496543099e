"""GStreamer's webrtcbin as a WHIP publisher; run by Debian's Python, which has its bindings.

usage: gst_publisher.py URL TOKEN SECONDS
Prints the DTLS certificate (PEM), then one line a state of the connection, then `end`.
"""

import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PIPELINE = """
webrtcbin name=peer bundle-policy=max-bundle
videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 ! videoconvert ! vp8enc deadline=1
  keyframe-max-dist=30 ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! peer.
audiotestsrc is-live=true ! audioconvert ! opusenc ! rtpopuspay ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.
"""


class Publisher:
    def __init__(self, url, token):
        self.url, self.token = url, token
        self.pipeline = Gst.parse_launch(PIPELINE)
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", self.negotiate)
        self.peer.connect("notify::connection-state", self.state_changed)
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.posted = False
        self.kept = []  # promises and descriptions must outlive their calls
        self.pipeline.set_state(Gst.State.PLAYING)

    def state_changed(self, peer, _):
        print(peer.get_property("connection-state").value_nick, flush=True)

    def negotiate(self, peer):
        promise = Gst.Promise.new_with_change_func(self.offer_made)
        self.kept.append(promise)
        peer.emit("create-offer", None, promise)

    def offer_made(self, promise):
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        done = Gst.Promise.new()
        self.kept += [reply, offer, done]
        self.peer.emit("set-local-description", offer, done)

    def gathered(self, peer, _):
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if peer.get_property("ice-gathering-state") == complete and not self.posted:
            self.posted = True
            GLib.idle_add(self.post)

    def post(self):
        transport = self.peer.emit("get-transceiver", 0).get_property("sender").get_property("transport")
        print(transport.get_property("certificate").strip(), flush=True)
        offer = self.peer.get_property("local-description").sdp.as_text()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/sdp"}
        request = urllib.request.Request(self.url, offer.encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        done = Gst.Promise.new()
        self.kept += [sdp, description, done]
        self.peer.emit("set-remote-description", description, done)
        print("answered", flush=True)


Gst.init(None)
loop = GLib.MainLoop()
publisher = Publisher(sys.argv[1], sys.argv[2])
GLib.timeout_add(int(float(sys.argv[3]) * 1000), loop.quit)
loop.run()
publisher.pipeline.set_state(Gst.State.NULL)
print("end", flush=True)
