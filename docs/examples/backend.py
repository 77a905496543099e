"""A map service's backend: GET /join?room=…&identity=… allocates the room and hands a token to the browser.

python3 backend.py, then open http://127.0.0.1:3000/ in two tabs. The standard library is all it needs.
"""

import base64
import http.server
import json
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("STUBE_URL", "http://127.0.0.1:7880")
KEY, SECRET = os.environ.get("STUBE_KEY", "devkey"), os.environ.get("STUBE_SECRET", "devsecret-devsecret-devsecret-dev")
HEADERS = {"Authorization": "Basic " + base64.b64encode(f"{KEY}:{SECRET}".encode()).decode(), "Content-Type": "application/json"}


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), HEADERS)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def join(name, identity):
    room = post("/v1/rooms", {"name": name})  # 201, or 200 if it is there already
    token = post(f"/v1/rooms/{urllib.parse.quote(name, safe='')}/tokens", {"identity": identity})["token"]
    return {"session_url": room["session_url"], "token": token}


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/":
            return self.answer(200, "text/html", pathlib.Path(__file__).with_name("browser.html").read_bytes())
        # Your own login says who asks, and your map where they stand; here the query does. Identities are pseudonyms.
        query = dict(urllib.parse.parse_qsl(url.query))
        room, identity = query.get("room"), query.get("identity")
        if not room or not identity:
            return self.say(400, {"error": "expected /join?room=…&identity=…"})
        try:
            self.say(200, join(room, identity))
        except urllib.error.HTTPError as error:
            self.say(502, {"error": f"{error}: {error.read().decode()}"})
        except urllib.error.URLError as error:
            self.say(502, {"error": str(error)})

    def log_message(self, *_):
        """Says nothing: the default would log who asks."""

    def say(self, status, said):
        self.answer(status, "application/json", json.dumps(said).encode())

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Backend)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
