"""Asks the HTTP listener for the page, each time on a new connection, until SIGTERM or for a minute;
prints how that went.

`knock.py yes` exits with 1 if a connection was refused."""

import http.client
import signal
import sys
import time

counts = {"answered": 0, "refused": 0, "broken": 0}
slowest = 0.0
asking = True


def stop(*_):
    global asking
    asking = False


signal.signal(signal.SIGTERM, stop)
print("knocking", flush=True)
end = time.monotonic() + 60
while asking and time.monotonic() < end:
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", 7880, timeout=20)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
        counts["answered"] += 1
    except ConnectionRefusedError:
        counts["refused"] += 1
    except (OSError, http.client.HTTPException):
        counts["broken"] += 1
    finally:
        connection.close()
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.005)
print(*(f"{count} {what}," for what, count in counts.items()), f"the slowest {slowest * 1000:.0f} ms")
sys.exit(1 if sys.argv[1] == "yes" and (counts["refused"] or not counts["answered"]) else 0)
