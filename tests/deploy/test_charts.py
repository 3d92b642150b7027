"""The Helm charts: rendered by helm, valid for Kubernetes, and with settings that the roles' own reader takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from deploy_lab import DEPLOY, ENDS, USER

from secformer import __version__
from secformer.mpc.net.tls import Identity
from secformer.roles.certificates import PORTS
from secformer.roles.settings import (
    ClientSettings,
    DealerSettings,
    PartySettings,
    load_client,
    load_dealer,
    load_party,
)

yaml = pytest.importorskip("yaml")

HELM = DEPLOY / "helm"
EXAMPLES = {"dealer": "secformer-dealer", "party0": "secformer-party", "party1": "secformer-party",
            "gateway": "secformer-gateway"}
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{role: (role, ()) for role in EXAMPLES},
    "dealer of one cell, IPv6": ("dealer", ('cells=[{"name": "only", "secret": "s"}]', 'listen="[::]"',
                                            'network.monitoring=[]', 'settings={"audit": "best effort"}')),
    "party0 without browsers": ("party0", ("browsers=null", "budgets={}", 'service={"type": "ClusterIP"}')),
    "party1 for browsers, IPv6": ("party1", ('browsers={"origins": ["http://[::1]:8450"], "from": ["::/0"]}',
                                             'listen="[::]"', 'settings={"receipts": false, "deadline": 90.5}')),
    "gateway for addresses": ("gateway", ('network.callers={"cidrs": ["10.0.0.0/8"], "namespaces": []}',
                                          'service={"type": "LoadBalancer"}')),
}
KEYS = {"secformer-dealer": DealerSettings, "secformer-party": PartySettings, "secformer-gateway": ClientSettings}
OLDEST, NEWEST = "1.29.0", "1.37.0"  # versions of Kubernetes: what the charts ask for, and what the schemas know


def helm(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("helm") is None:
        pytest.skip("there is no helm here")
    kept = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run(["helm", *arguments], env=kept, capture_output=True, text=True, check=False)


def template(role: str, *sets: str, home: Path, name: str = "cells") -> subprocess.CompletedProcess[str]:
    given = [word for each in sets for word in ("--set-json", each)]
    return helm("template", name, str(HELM / EXAMPLES[role]), "--values", str(HELM / f"examples/{role}.yaml"), *given,
                home=home)


@cache
def text(variant: str, home: Path) -> str:
    role, sets = VARIANTS[variant]
    done = template(role, *sets, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(variant: str, home: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text(variant, home)) if each]


@pytest.fixture
def role(variant: str) -> str:
    return VARIANTS[variant][0]


def of(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] in kinds]


def workloads(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return of(objects, "StatefulSet", "Deployment")


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(workload)["containers"]
    assert not pod(workload).get("initContainers")
    return dict(only)


def mounts(workload: dict[str, Any]) -> dict[str, str]:
    """Volume by the folder where it is mounted."""
    return {each["mountPath"]: each["name"] for each in container(workload)["volumeMounts"]}


def mount_of(path: Path, workload: dict[str, Any]) -> str:
    """The volume that holds a path."""
    found = [name for folder, name in mounts(workload).items() if path.is_relative_to(folder)]
    assert len(found) == 1, f"{path} lies in {found}"
    return found[0]


def projected(workload: dict[str, Any], volume: str) -> set[Path]:
    """The files of a volume that is made of a Secret's or a ConfigMap's entries, where the container sees them."""
    (source,) = [each for each in pod(workload)["volumes"] if each["name"] == volume]
    items = (source.get("secret") or source["configMap"])["items"]
    (folder,) = [folder for folder, name in mounts(workload).items() if name == volume]
    return {Path(folder, item["path"]) for item in items}


# ---- what helm and Kubernetes say ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", EXAMPLES)
def test_helm_finds_nothing(role: str, home: Path) -> None:
    done = helm("lint", "--strict", str(HELM / EXAMPLES[role]), "--values", str(HELM / f"examples/{role}.yaml"),
                home=home)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", EXAMPLES)
def test_kubernetes_knows_every_field(role: str, home: Path) -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    for each in yaml.safe_load_all(text(role, home)):
        for version in (OLDEST, NEWEST):
            schemas.validate(each, version, strict=True)
    assert f'">={OLDEST}-0"' in (HELM / "secformer-party/Chart.yaml").read_text("utf-8")


def test_names_are_there_once(objects: list[dict[str, Any]]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)


# ---- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_what_the_role_reads(role: str, objects: list[dict[str, Any]], tmp_path: Path) -> None:
    """Every path lies in a volume, every file of [tls] is projected, every port is opened."""
    (config,) = of(objects, "ConfigMap")
    made = workloads(objects)
    pairs = ([(made[0], Path("/etc/secformer/settings", name)) for name in config["data"]] if role == "gateway" else
             [(each, next(iter(projected(each, "settings")))) for each in made])
    assert len(pairs) == len(config["data"])
    for workload, path in pairs:
        key = path.name if role == "gateway" else f"{workload['metadata']['labels']['secformer/cell']}.toml"
        assert str(path) in " ".join(container(workload)["args"])
        (tmp_path / key).write_text(config["data"][key], "utf-8")
        settings = {"dealer": load_dealer, "gateway": load_client}.get(role, load_party)(tmp_path / key)
        wanted = {Path(getattr(settings.tls, f.name)) for f in fields(Identity)}
        assert wanted == projected(workload, mount_of(settings.tls.key, workload))
        if isinstance(settings, ClientSettings):
            assert mount_of(settings.model, workload).startswith("model-")
            continue
        claims = {each["metadata"]["name"]: each for each in workload["spec"]["volumeClaimTemplates"]}
        written = {"state": settings.state, "audit": settings.audit_folder}
        ports = {"metrics": settings.metrics}
        if isinstance(settings, PartySettings):
            assert settings.rank == int(role[-1])
            assert mount_of(settings.model, workload) == "model"
            if settings.rank == 1:
                written["store"] = settings.store
            else:
                ports["link"] = settings.link
            ports["clients"] = settings.clients
            if settings.browsers is not None:
                ports["browsers"] = settings.browsers.address
                if settings.browsers.key is not None:
                    assert {settings.browsers.certificate, settings.browsers.key} == projected(workload, "web")
        else:
            ports["parties"] = settings.listen
        assert {name: mount_of(path, workload) for name, path in written.items()} == {name: name for name in claims}
        assert all(path.name == key.removesuffix(".toml") and str(path.parent) in mounts(workload)
                   for path in written.values()), "each in a folder of its own, which the role makes for itself alone"
        opened = {each["name"]: each["containerPort"] for each in container(workload)["ports"]}
        assert opened == {name: address[1] for name, address in ports.items() if address is not None}
        assert {address[0] for address in ports.values() if address is not None} <= {"0.0.0.0", "::"}


def test_values_reach_the_settings(home: Path, tmp_path: Path) -> None:
    data = next(each for each in yaml.safe_load_all(text("party0", home)) if each["kind"] == "ConfigMap")["data"]
    (tmp_path / "b.toml").write_text(data["b.toml"], "utf-8")
    settings = load_party(tmp_path / "b.toml")
    assert (settings.threads, settings.in_flight, settings.session_age) == (4, 4, 43200.0)
    assert settings.dealer == ("b.dealer.example", 8440)
    assert settings.budgets.of("alice").texts_per_day == 500 and settings.budgets.common.requests_per_day == 1_000_000
    assert settings.browsers is not None and settings.browsers.origins == ["https://page.example"]
    assert settings.browsers.token_seconds == 600


@pytest.mark.parametrize("role", ["dealer", "party0", "party1"])
def test_ports_are_those_that_init_writes(role: str, home: Path) -> None:
    opened: set[int] = set()
    for each in workloads([each for each in yaml.safe_load_all(text(role, home)) if each]):
        opened |= {port["containerPort"] for port in container(each)["ports"]}
    names = {"dealer": ("dealer", "dealer_metrics"), "party0": ("party0", "link", "browsers0", "metrics0"),
             "party1": ("party1", "metrics1")}
    assert opened == {PORTS[name] for name in names[role]}


@pytest.mark.parametrize("chart", KEYS)
def test_schemas_have_the_keys_of_the_settings(chart: str) -> None:
    """With the limits that the reader has; but for what the chart sets itself."""
    given = json.loads((HELM / chart / "values.schema.json").read_text("utf-8"))["properties"]["settings"]
    wanted: dict[str, dict[str, Any]] = {}
    for f in fields(KEYS[chart]):
        kind, limits = f.metadata["kind"], f.metadata
        if f.name == "rank" or kind in ("path", "address", "address?", "tls", "budgets", "browsers"):
            continue
        if kind == "whole":
            wanted[f.name] = {"type": "integer", "minimum": limits.get("least", 0)}
            wanted[f.name] |= {"maximum": limits["most"]} if "most" in limits else {}
        else:
            wanted[f.name] = {"seconds": {"type": "number", "exclusiveMinimum": 0}, "flag": {"type": "boolean"},
                              "choice": {"enum": list(limits.get("choices", ()))}}[kind]
    assert given["properties"] == wanted
    assert given["additionalProperties"] is False


# ---- secrets and hardening -------------------------------------------------------------------------------------------


def test_nothing_secret_is_rendered(objects: list[dict[str, Any]], variant: str, home: Path) -> None:
    """Secrets are named, never made: what helm renders is kept in the cluster, and in the history of releases."""
    assert not of(objects, "Secret")
    assert "PRIVATE KEY" not in text(variant, home)
    for each in workloads(objects):
        assert not any("valueFrom" in given for given in container(each).get("env", ()))


def test_containers_are_hardened(objects: list[dict[str, Any]], role: str) -> None:
    for each in workloads(objects):
        spec, only = pod(each), container(each)
        assert only["securityContext"] == {"allowPrivilegeEscalation": False, "privileged": False,
                                           "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        inside = spec["securityContext"]
        assert inside["runAsNonRoot"] and inside["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inside["runAsUser"] == inside["runAsGroup"] == inside["fsGroup"] == USER
        assert not spec["automountServiceAccountToken"] and not spec.get("hostNetwork") and not spec.get("hostPID")
        assert "memory" in only["resources"]["limits"]
        assert "@sha256:" in only["image"]
        assert spec["terminationGracePeriodSeconds"] > ENDS[role]
        kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        assert not any("subPath" in mount for mount in only["volumeMounts"]), "renewed files would not appear"


def test_each_pod_sees_its_own_cell_only(home: Path) -> None:
    objects = [each for each in yaml.safe_load_all(text("party1", home)) if each]
    seen = {each["metadata"]["labels"]["secformer/cell"]: (
        [volume["secret"]["secretName"] for volume in pod(each)["volumes"] if "secret" in volume],
        [volume["persistentVolumeClaim"]["claimName"] for volume in pod(each)["volumes"]
         if "persistentVolumeClaim" in volume]) for each in workloads(objects)}
    assert seen == {"a": (["cell-a"], ["shares"]), "b": (["cell-b"], ["shares-b"])}


def test_a_cell_is_replaced_when_its_operator_says_so(objects: list[dict[str, Any]], role: str) -> None:
    """And no two processes ever use one folder."""
    for each in workloads(objects):
        if role == "gateway":
            assert each["kind"] == "Deployment"
            continue
        spec = each["spec"]
        assert spec["replicas"] == 1 and spec["updateStrategy"] == {"type": "OnDelete"}
        assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
        for claim in spec["volumeClaimTemplates"]:
            assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
            excluded = "velero.io/exclude-from-backup" in claim["metadata"].get("labels", {})
            assert excluded == (claim["metadata"]["name"] != "audit")


def test_a_cell_may_have_another_image(home: Path) -> None:
    made = workloads([each for each in yaml.safe_load_all(text("dealer", home)) if each])
    assert [container(each)["image"][-4:] for each in made] == ["1111", "2222"]


# ---- the network -----------------------------------------------------------------------------------------------------


def test_services_lead_to_ports(objects: list[dict[str, Any]], role: str) -> None:
    """Of a workload that is there. Roles are reached before they are ready, or no cell would ever become ready; and
    metrics are never shown outside of the cluster."""
    for service in of(objects, "Service"):
        chosen = [each for each in workloads(objects) if service["spec"]["selector"].items()
                  <= each["spec"]["template"]["metadata"]["labels"].items()]
        inside = service["spec"].get("clusterIP") == "None"
        assert len(chosen) == (len(workloads(objects)) if inside else 1)
        for each in chosen:
            opened = {port["name"] for port in container(each)["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= opened
        if role != "gateway":
            assert service["spec"]["publishNotReadyAddresses"]
        if not inside:
            assert "metrics" not in {port["targetPort"] for port in service["spec"]["ports"]}
            if service["spec"]["type"] != "ClusterIP":
                assert service["spec"]["externalTrafficPolicy"] == "Local"
    for each in of(objects, "StatefulSet"):
        names = {service["metadata"]["name"] for service in of(objects, "Service")
                 if service["spec"].get("clusterIP") == "None"}
        assert each["spec"]["serviceName"] in names


def test_only_peers_get_through(objects: list[dict[str, Any]], role: str) -> None:
    (policy,) = of(objects, "NetworkPolicy")
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    for each in workloads(objects):
        assert spec["podSelector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        opened = {port["name"] for port in container(each)["ports"]}
        let_in = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        assert let_in <= opened and opened - let_in <= {"metrics"}
    assert all(rule["from"] for rule in spec["ingress"]) and all(rule["to"] for rule in spec["egress"])
    outward = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert outward == {"dealer": set(), "party0": {53, 8440}, "party1": {53, 8440, 8441, 18441},
                       "gateway": {53, 8442, 8443}}[role]


def test_link_is_for_the_other_party(home: Path) -> None:
    (policy,) = of([each for each in yaml.safe_load_all(text("party0", home)) if each], "NetworkPolicy")
    sources = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert sources["link"] == [{"ipBlock": {"cidr": "198.51.100.0/28"}}]
    assert sources["clients"] == sources["browsers"] == [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    assert all("namespaceSelector" in peer for peer in sources["metrics"])


def test_probes_ask_where_the_role_answers(objects: list[dict[str, Any]], role: str) -> None:
    for each in workloads(objects):
        only = container(each)
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            asked = only[probe]["httpGet"]
            assert asked == {"path": path, "port": "https" if role == "gateway" else "metrics",
                             "scheme": "HTTPS" if role == "gateway" else "HTTP"}
        (budget,) = of(objects, "PodDisruptionBudget")
        assert (budget["spec"]["selector"]["matchLabels"].items()
                <= each["spec"]["template"]["metadata"]["labels"].items())


# ---- what is refused -------------------------------------------------------------------------------------------------

CELL = '"name": "a", "secret": "s", "dealer": "d:8440", "modelClaim": "m"'


@pytest.mark.parametrize(("role", "change", "named"), [
    ("party0", "rank=2", "rank"),
    ("party0", "rank=null", "rank"),
    ("party0", 'image={"repository": "r/s", "digest": ""}', "digest"),
    ("party0", 'image={"repository": "r/s", "digest": "latest"}', "digest"),
    ("party0", 'image.tag="latest"', "tag"),
    ("party0", "settings.thread=2", "thread"),
    ("party0", "settings.in_flight=9", "in_flight"),
    ("party0", "settings.in_flight=2.5", "in_flight"),
    ("party0", 'settings.audit="sometimes"', "audit"),
    ("party0", 'settings.state="/elsewhere"', "state"),
    ("party0", f"cells=[{{{CELL}, \"link\": \"p:8441\"}}]", "link"),
    ("party1", f"cells=[{{{CELL}}}]", "link"),
    ("party0", "cells=[]", "cells"),
    ("party0", f"cells=[{{{CELL}}}, {{{CELL}}}]", "two cells are called a"),
    ("party0", 'cells=[{"name": "pods", "secret": "s", "dealer": "d:8440", "modelClaim": "m"}]', "name"),
    ("party0", 'cells=[{"name": "A", "secret": "s", "dealer": "d:8440", "modelClaim": "m"}]', "name"),
    ("party0", 'cells=[{"name": "a", "secret": "s", "dealer": "d", "modelClaim": "m"}]', "dealer"),
    ("party0", f'cells=[{{{CELL}, "modelFile": "../x"}}]', "modelFile"),
    ("party0", f'cells=[{{{CELL}, "key": "-----BEGIN PRIVATE KEY-----"}}]', "key"),
    ("party0", "network.clients=[]", "clients"),
    ("party0", 'network.clients=["everybody"]', "clients"),
    ("party1", 'browsers={"origins": ["https://page.example"]}', "from"),
    ("party0", 'browsers.origins=["https://page.example/path"]', "origins"),
    ("party0", 'budgets={"text_per_day": 5}', "text_per_day"),
    ("party0", 'budgets={"clients": {"a.b": {"texts_per_day": 5}}}', "a.b"),
    ("party0", 'securityContext={"privileged": true}', "securityContext"),
    ("dealer", "network.parties=[]", "parties"),
    ("dealer", 'settings.model="m"', "model"),
    ("dealer", "rank=0", "rank"),
    ("gateway", 'apiKeySecret=""', "apiKeySecret"),
    ("gateway", 'apiKey="0123456789abcdef"', "apiKey"),
    ("gateway", "network.callers={\"namespaces\": []}", "callers"),
    ("gateway", "models=[]", "models"),
])
def test_bad_values_are_refused(role: str, change: str, named: str, home: Path) -> None:
    done = template(role, change, home=home)
    assert done.returncode != 0, f"{change} was taken"
    assert named in done.stderr


def test_long_names_are_refused(home: Path) -> None:
    done = template("dealer", home=home, name="x" * 51)
    assert done.returncode != 0 and "too long" in done.stderr


def test_charts_without_values_are_refused(home: Path) -> None:
    for chart in set(EXAMPLES.values()):
        assert helm("template", "cells", str(HELM / chart), home=home).returncode != 0


# ---- the files -------------------------------------------------------------------------------------------------------


def test_charts_are_of_this_version() -> None:
    for chart in KEYS:
        about = yaml.safe_load((HELM / chart / "Chart.yaml").read_text("utf-8"))
        assert about["version"] == about["appVersion"] == __version__


def test_charts_share_their_helpers() -> None:
    """Each chart is whole by itself, because each goes to another organisation; what they share is the same text."""
    texts = {(HELM / chart / "templates/_helpers.tpl").read_text("utf-8") for chart in KEYS}
    assert len(texts) == 1
