"""A room and a token in ten lines, as JSON for the browser: python3 ten-lines.py ROOM IDENTITY"""
import base64, json, os, sys, urllib.parse, urllib.request
url, key, secret = (os.environ.get(name, shipped) for name, shipped in (("STUBE_URL", "http://127.0.0.1:7880"), ("STUBE_KEY", "devkey"), ("STUBE_SECRET", "devsecret-devsecret-devsecret-dev")))
headers = {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode(), "Content-Type": "application/json"}
def post(path, body):
    return json.load(urllib.request.urlopen(urllib.request.Request(url + path, json.dumps(body).encode(), headers)))
name, identity = sys.argv[1:]
room = post("/v1/rooms", {"name": name})
token = post(f"/v1/rooms/{urllib.parse.quote(name, safe='')}/tokens", {"identity": identity})["token"]
print(json.dumps({"session_url": room["session_url"], "token": token}))
