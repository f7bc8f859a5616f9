"""What docker/ ships fits its schemas, itself, and a running silo. No engine runs here."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import durum
from durum import errors
from durum.silo.silo import Silo
from durum.web import metrics
from durum.web.pages import Pages

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
KUBERNETES = ("1.29", "1.34")
BEYOND = {"up": set[str]()}  # what Prometheus itself adds
TARGET = {"instance", "job"}
DASHBOARD = DOCKER / "grafana" / "dashboards" / "durum.json"


class Greeter(durum.Actor):
    greeted: int = 0

    async def greet(self) -> int:
        self.greeted += 1
        return self.greeted

    async def fail(self) -> None:
        raise ValueError("as asked")


class Unhosted(durum.Actor):
    async def greet(self) -> None:
        """Nobody hosts it."""


@pytest.fixture(scope="module")
def scraped() -> dict[str, set[str]]:
    """Names of all series of a silo that has done a little, each with its labels."""
    page = asyncio.run(scrape())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page.decode()):
        # A family without samples now has its labels all the same.
        labels = {"suspect"} if family.name == "durum_suspicions" else set()
        found.setdefault(family.name, set()).update(labels)
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return {**found, **BEYOND}


async def scrape() -> bytes:
    async with Silo([Greeter], "memory:") as silo, silo.connect() as cluster:
        await cluster.actor(Greeter, "x").greet()
        with pytest.raises(ValueError, match="as asked"):
            await cluster.actor(Greeter, "x").fail()
        with pytest.raises(errors.NoSuchKind):
            await cluster.actor(Unhosted, "x").greet()
        return metrics.render(silo.statistics())[0]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


# Compose ---------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return found


def test_compose_file_fits_its_schema() -> None:
    """A newcomer's first command must not end in a syntax error."""
    merged = json.dumps(compose())  # anchors and merge keys resolved
    found = compose_spec.PyCompose.from_json(merged)
    found.validate()
    assert {"valkey", "silo-1", "silo-2", "silo-3", "prometheus", "grafana"} <= set(
        found.service_names()
    )


def test_compose_mounts_what_is_there() -> None:
    """A directory that is missing would be made, empty, by the engine."""
    for name, service in compose()["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).is_dir(), f"{name}: {source}"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"


def test_compose_keeps_secrets_out_of_the_file_and_ports_off_the_network() -> None:
    """An example is copied as it is."""
    text = (DOCKER / "compose.yaml").read_text()
    assert re.findall(r"(?:PASSWORD|SECRET): (?!\$\{)", text) == []
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_prometheus_scrapes_the_silos_of_the_compose_file() -> None:
    """A fourth silo that nobody watches would be easy to add."""
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (static,) = job["static_configs"]
    silos = [name for name in compose()["services"] if name.startswith("silo-")]
    assert static["targets"] == [f"{name}:9464" for name in silos]


def test_commands_in_containers_parse() -> None:
    """An option that was renamed would be found at the next deployment only."""
    told = [service["command"] for name, service in compose()["services"].items() if "silo" in name]
    for _, document in documents():
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        told += [container["args"] for container in pod.get("containers", ())]
    assert len(told) == 5
    for words in told:
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        done = subprocess.run(
            [sys.executable, "-m", "durum", words[0], "--help"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert [option for option in options if option not in done.stdout] == []


# Kubernetes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_fit_the_schemas(version: str) -> None:
    """Strictly: a misspelt field is otherwise ignored by the cluster, in silence."""
    seen = []
    for name, document in documents():
        seen.append(document["kind"])
        if document["apiVersion"].startswith("monitoring.coreos.com"):
            continue  # a custom resource: see the test of its fields below
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as exc:
            pytest.fail(f"{name}: {exc.path}: {exc.message}")
    assert sorted(seen) == ["Deployment", "Job", "PodDisruptionBudget", "Service", "ServiceMonitor"]


def test_manifests_fit_each_other() -> None:
    """Labels and port names join them; a typing error there selects nothing."""
    by_kind = {document["kind"]: document for _, document in documents()}
    deployment = by_kind["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    (silo,) = deployment["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in silo["ports"]}
    service = by_kind["Service"]
    assert deployment["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert service["spec"]["clusterIP"] == "None"
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert silo[probe]["httpGet"]["port"] in ports
    monitor = by_kind["ServiceMonitor"]["spec"]
    assert set(monitor) == {"jobLabel", "selector", "endpoints"}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert set(endpoint) == {"port", "path", "interval"}
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_pods_get_the_time_that_draining_may_take() -> None:
    """A silo that is killed before it has handed over leaves its grains waiting."""
    config = durum.SiloConfig()
    by_kind = {document["kind"]: document for _, document in documents()}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    pause_s = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = pause_s + config.limits.drain_timeout_s + config.lease.lease_s
    assert pod["terminationGracePeriodSeconds"] >= needed
    grace = compose()["services"]["silo-1"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) >= needed - pause_s


# Dockerfile ------------------------------------------------------------------------------------------


def steps() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines()]
    return [(line[0], line[1]) for line in lines if len(line) == 2 and line[0] != "#"]


def test_dockerfile_copies_what_is_there_and_is_let_in() -> None:
    """The ignore file lets nothing in but what is named."""
    allowed = {
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for word, rest in steps()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in allowed, source


def test_image_runs_without_root() -> None:
    """Checked by clusters that demand it, which need a number."""
    users = [rest for word, rest in steps() if word == "USER"]
    assert users[-1].isdigit()
    assert int(users[-1]) > 0


async def test_health_check_of_the_image_is_right(capfd: pytest.CaptureFixture[str]) -> None:
    """The very command, against a running silo and against none."""
    (check,) = [rest for word, rest in steps() if word == "HEALTHCHECK"]
    words: list[str] = json.loads(check.partition("CMD ")[2])
    words[0] = sys.executable
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo:
        own = [word.replace("127.0.0.1:9464", pages.address) for word in words]
        assert own != words
        assert await _code(own) == 0
    assert await _code(own) != 0
    capfd.readouterr()


async def _code(words: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*words)
    return await process.wait()


# Queries ---------------------------------------------------------------------------------------------


def queries() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    alerts = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        yield f"alert {rule['alert']}", rule["expr"]


@pytest.mark.parametrize(("where", "query"), [pytest.param(w, q, id=w) for w, q in queries()])
async def test_query_is_about_what_silos_tell(
    where: str, query: str, scraped: dict[str, set[str]]
) -> None:
    """A panel about a metric that was renamed is empty, and an alert silent, for ever."""
    del where
    query = query.replace("$__rate_interval", "1m")
    promql_parser.parse(query)
    names = re.findall(r"\b((?:durum|process)_\w+|up)\b", query)
    assert names
    for name in names:
        assert name in scraped, name
    labels = {label for name in names for label in scraped[name]} | TARGET | {"le"}
    used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query)
    for listed in re.findall(r"\b(?:by|ignoring|on|without)\s*\(([^)]*)\)", query):
        used += [label.strip() for label in listed.split(",")]
    assert [label for label in used if label not in labels] == []


def test_variables_of_the_dashboard_ask_for_what_silos_tell(scraped: dict[str, set[str]]) -> None:
    """Without them every panel is empty."""
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert found is not None
        assert found[2] in scraped[found[1]] | TARGET


def test_panels_do_not_overlap_and_have_their_own_numbers() -> None:
    """Grafana draws one over the other, and mixes up those with one number."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_metric_and_alert_is_explained(scraped: dict[str, set[str]]) -> None:
    """Whoever is woken by one must find what to do."""
    text = (ROOT / "docs" / "operations.md").read_text()
    families = {
        re.sub(r"_(total|bucket|count|sum|created)$", "", name)
        for name in scraped
        if name.startswith("durum_")
    }
    assert [name for name in sorted(families) if name not in text] == []
    alerts = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        assert rule["alert"] in text
