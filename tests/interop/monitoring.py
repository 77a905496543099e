"""docs/monitoring/ with Debian's Prometheus and node exporter: the dashboard has data, the rules are sound.

A server under real media is scraped once a second. Every expression of the dashboard and of the rules is evaluated by
Prometheus itself; each name, and each label value that one asks for, has to exist, for a misspelt one is silent for ever.
"""

import asyncio
import contextlib
import json
import math
import os
import pathlib
import re
import socket
import tempfile
import time

import aiohttp

from own_server import OwnServer
from server import KEY, until

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
MONITORING = DOCS / "monitoring"
RULES_TEST = HERE / "rules-test.yml"
CHECKPOINT_S = 1
WINDOW = "8s"  # for Grafana's $__rate_interval and $__range
# Bits per second are read beside bit rates everywhere; docs/operations.md says so.
LINT = {'stube_subscriber_estimate_bits_per_second use base unit "bytes" instead of "bits"'}
NAME = re.compile(r"\b(?:(?:instance:)?stube_|process_|node_)\w+(?::\w+)?|\bup\b")
MATCHER = re.compile(r'(\w+)(=~?)"([^"]*)"')


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def promtool(*arguments, text=None):
    """Its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        "promtool", *map(str, arguments), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(process.communicate(text and text.encode()), 60)
    return process.returncode, said.decode()


@contextlib.asynccontextmanager
async def running(log, *command):
    """A process that is ended by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


class Prometheus:
    """Its HTTP API."""

    def __init__(self, http, port):
        self.http, self.url = http, f"http://127.0.0.1:{port}"

    async def get(self, path, **query):
        async with self.http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            body = await answer.json()
            assert body["status"] == "success", f"{path} {query}: {body}"
            return body["data"]

    async def now(self, expression):
        return (await self.get("query", query=expression))["result"]

    async def has_values(self, expression, begin, end):
        """Whether a graph over this time shows anything."""
        series = await self.get("query_range", query=expression, start=str(begin), end=str(end), step="1")
        return any(math.isfinite(float(value)) for one in series["result"] for _, value in one["values"])

    async def scrapes(self, jobs):
        """Whether all targets are up and the recording rules have been recorded."""
        with contextlib.suppress(aiohttp.ClientError):
            targets = (await self.get("targets"))["activeTargets"]
            names = await self.get("label/__name__/values")
            up = {target["labels"]["job"] for target in targets if target["health"] == "up"}
            return up == jobs and any(name.startswith("instance:") for name in names)
        return False


@contextlib.asynccontextmanager
async def prometheus(server, folder):
    """Prometheus with the configuration of docs/monitoring/, but for ports and intervals."""
    port, node_port = free_port(), free_port()
    config = (MONITORING / "prometheus.yml").read_text()
    for old, new in (
        ("127.0.0.1:6789", f"127.0.0.1:{server.ports['admin']}"), ("127.0.0.1:9100", f"127.0.0.1:{node_port}"),
        ("_interval: 15s", "_interval: 1s"), ("[stube-rules.yml]", f"[{MONITORING}/stube-rules.yml]"),
    ):  # fmt: skip
        assert old in config, f"prometheus.yml has no {old}"
        config = config.replace(old, new)
    path = pathlib.Path(folder, "prometheus.yml")
    path.write_text(config)
    collectors = [f"--collector.{name}" for name in ("disable-defaults", "timex", "time", "netstat", "filesystem")]
    with open(pathlib.Path(folder, "log"), "w+b") as log:
        try:
            async with (
                running(log, "prometheus-node-exporter", *collectors, f"--web.listen-address=127.0.0.1:{node_port}"),
                running(log, "prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data",
                        f"--web.listen-address=127.0.0.1:{port}"),
            ):  # fmt: skip
                database = Prometheus(server.http, port)
                await until(lambda: database.scrapes({"stube", "node"}), 20, "Prometheus scrapes both")
                yield database
        except BaseException:
            print(pathlib.Path(log.name).read_text(errors="replace")[-3000:])
            raise


def load(server, *options):
    """Participants who send and receive, until their time is up or they are told to leave."""
    return running(asyncio.subprocess.DEVNULL, os.environ["STUBE_BIN"], "load", "--config", server.config,
                   "--url", server.url, "--warmup", "0", *options)  # fmt: skip


async def series(server):
    """Every series of /metrics without its value, and the text."""
    text = await server.text(server.admin + "/metrics")
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}, text


def dashboard():
    """Title and expression of every target."""
    board = json.loads((MONITORING / "stube-dashboard.json").read_text())
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert variables == ["datasource", "instance"], variables
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Joins", "Capacity", "Quality", "Privacy and accounts"], rows
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" and panel["description"] for panel in panels)
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", WINDOW).replace("$__range", WINDOW)
            assert '$instance"' in expression, f"{panel['title']} shows all instances: {expression}"
            yield panel["title"], expression.replace("$instance", ".*")


async def check_names(database, where, expression):
    """All metrics of an expression exist, and so does each label value that it asks for."""
    selectors = re.findall(rf"({NAME.pattern})({{.*?}})?", expression)
    assert selectors, f"{where}: no metric in {expression}"
    for name, labels in selectors:
        for label, operator, text in MATCHER.findall(labels) or [("__name__", "=", name)]:
            for value in [text] if operator == "=" or text == ".*" else text.split("|"):
                selector = f'{{__name__="{name}", {label}{operator}"{value}"}}'
                # The host decides which file systems it has.
                found = label == "mountpoint" or await database.now(f"count({selector})")
                assert found, f"{where}: Prometheus has no {selector}"


async def check_dashboard(database, begin, end):
    count = 0
    for title, expression in dashboard():
        await check_names(database, title, expression)
        assert await database.has_values(expression, begin, end), f"{title} is empty in a call: {expression}"
        count += 1
    [instance] = await database.get("label/instance/values", **{"match[]": "stube_build_info"})
    print(f"    {count} expressions of the dashboard have data of {instance}")


def anchors(page):
    """Its headings as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


async def check_rules(database):
    groups = (await database.get("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    tested = RULES_TEST.read_text()
    known = anchors(DOCS / "incidents.md")
    for rule in rules:
        assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError', rule['health'])}"
        await check_names(database, rule["name"], rule["query"])
        await database.now(rule["query"])
        if rule["type"] != "alerting":
            continue
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["name"]
        assert {"summary", "action", "runbook"} <= set(rule["annotations"]), f"{rule['name']}: {rule['annotations']}"
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/incidents.md" and anchor in known, f"{rule['name']}: no {page}#{anchor}"
        assert f"`{rule['name']}`" in (DOCS / "incidents.md").read_text(), f"incidents.md does not name {rule['name']}"
        # Each test lists all that fires, so one with the alert and an instance that is fine says both.
        test = next((t for t in tested.split("  - name: ")[1:] if t.startswith(rule["name"])), "")
        assert f'alertname="{rule["name"]}", instance="bad"' in test and 'instance="fine"' in test, (
            f"rules-test.yml does not show when {rule['name']} fires and when it does not")
    alerts = (await database.get("alerts"))["alerts"]
    firing = [a["labels"]["alertname"] for a in alerts if a["state"] == "firing" and a["labels"]["job"] == "stube"]
    assert not firing, f"a call that goes well fires {firing}"
    print(f"    {len(rules)} rules are evaluated; none fires")


async def check_series(server, idle):
    """Labels are closed sets: a call adds no series to those of an idle server, and names nobody."""
    busy, text = await series(server)
    assert busy == idle, f"a call changes the series: {busy ^ idle}"
    rooms = (await server.api("GET", "/v1/rooms"))["rooms"]
    people = [identity for room in rooms for identity in await server.participants(room["name"])]
    assert rooms and people, "nobody is there"
    labels = " ".join(re.findall(r"{.*}", text))
    for secret in (*(room["name"] for room in rooms), *(room["sid"] for room in rooms), *people, KEY, "127.0.0.1"):
        assert secret not in labels, f"a label holds {secret}"
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f]*:[0-9a-f]+", labels), "a label looks like an address"
    status, said = await promtool("check", "metrics", text=text)
    remarks = set(said.splitlines())
    assert status in (0, 3) and remarks == LINT, f"promtool check metrics: {status} {remarks}"


async def check_files():
    """What promtool says of the files alone."""
    for arguments in (
        ("check", "config", "--syntax-only", MONITORING / "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", MONITORING / "stube-rules.yml"),
        ("test", "rules", RULES_TEST),
    ):  # fmt: skip
        status, said = await promtool(*arguments)
        assert status == 0, f"promtool {' '.join(map(str, arguments))}: {said}"


async def check_running():
    """One call that ends, and then some that go on, with people who come and leave and a network that loses."""
    with tempfile.TemporaryDirectory(prefix="stube-prometheus-") as folder:
        async with OwnServer(f"[ledger]\ncheckpoint_s = {CHECKPOINT_S}\n") as server:
            idle, _ = await series(server)
            async with prometheus(server, folder) as database:
                begin = time.time()
                async with load(server, "--rooms", "1", "--participants", "2", "--duration", "1") as call:
                    assert await asyncio.wait_for(call.wait(), 30) == 0, "stube load failed"
                async with load(server, "--rooms", "2", "--participants", "3", "--simulcast", "--churn", "2",
                                "--loss", "2", "--duration", "60"):  # fmt: skip
                    await asyncio.sleep(7)
                    await check_series(server, idle)
                    await check_rules(database)
                    await check_dashboard(database, begin, time.time())


async def monitoring():
    async with asyncio.TaskGroup() as both:
        both.create_task(check_files())
        both.create_task(check_running())
