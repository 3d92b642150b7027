"""Served roles as users meet them: answers, cost, material made ahead, several clients, and orderly ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browsers_lab import Bearer
from roles_lab import LONG, TEXT, ask, log_lines, no_serial_twice, right, serials, until
from sentence_lab import write_sentence

from secformer import SecureModel, connect, demo_model, plain_bert
from secformer.cli import main
from secformer.models.run.tables import FILE
from secformer.mpc.errors import InputError, ModelError, ProtocolError
from secformer.mpc.prg import fresh_seed
from secformer.roles.certificates import issue
from secformer.roles.messages import ID_DIGITS, Half
from secformer.roles.settings import ClientSettings, load_client
from secformer.roles.tokens import pair
from secformer.roles.trial import LocalRoles

MIXED = ["Bad.", "A clumsy script, saved by two brilliant performances.", "", "so so", "great " * 40]


def fetch(roles: LocalRoles, rank: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", roles.ports[f"metrics{rank}"], timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def one_by_one(roles: LocalRoles) -> ClientSettings:
    """The client's settings for one request at a time, as in one process."""
    return replace(load_client(roles.settings("client")), in_flight=1)


def test_answers_and_cost_are_the_in_process_ones(up: LocalRoles) -> None:
    """Two requests in flight send the same bytes as one after the other, and wait for half the rounds, about."""
    with connect(one_by_one(up)) as client, SecureModel.from_pretrained(demo_model(), backend="numpy") as model:
        out, two = client.infer(MIXED), ask(up, MIXED)
        model.provision()
        inside = model(MIXED)
    for each in (out, two):
        right(each, MIXED)
    assert out.cost is not None and inside.cost is not None and two.cost is not None
    assert out.cost.rounds == inside.cost.rounds  # the check of one-hot rows takes none
    checked = (out.cost.bytes - inside.cost.bytes) / 64  # 4 for each request, and the words and segments of all tokens
    assert checked.is_integer() and 4 < checked < 200
    assert (two.cost.bytes, two.cost.dealer_bytes) == (out.cost.bytes, out.cost.dealer_bytes)
    assert out.cost.dealer_bytes >= inside.cost.dealer_bytes
    assert inside.cost.rounds / 2 <= two.cost.rounds < inside.cost.rounds
    assert [c for c in out.cost.children] == [c for c in inside.cost.children]


def test_pages_get_the_same_answers_with_tokens(up: LocalRoles, tmp_path: Path) -> None:
    """Signed for by both parties as the client's; another token of the same client may come for the other half."""
    settings = one_by_one(up)
    tokens = [pair(settings, 600, 100).as_dict() for _ in range(2)]
    with connect(settings, receipts=tmp_path / "receipts") as client:
        client._ways[0].parties = [Bearer(up, rank, tokens[rank][f"party{rank}"]) for rank in (0, 1)]
        right(client.infer(MIXED), MIXED)
        for each in client._ways[0].parties:
            each.close()
        client._ways[0].parties = [Bearer(up, rank, tokens[0][f"party{1 - rank}"]) for rank in (0, 1)]
        with pytest.raises(ProtocolError, match="answered 401: the token is for 'party"):
            client.infer(TEXT)
    assert (tmp_path / "receipts").read_text().count("\n") >= 1
    for rank in (0, 1):
        assert 'secformer_port_requests_total{port="browsers"}' in fetch(up, rank, "/metrics")[1]
        assert 'secformer_refused_browsers_total{why="other party"}' in fetch(up, rank, "/metrics")[1]


def test_clients_that_hold_the_tables_share_sums(tmp_path: Path) -> None:
    """A folder of sentence-transformers, whose encoder's tables the client holds: the answers and costs of the same
    model in process; stored material serves it; and the parties refuse a half of any other shape or width."""
    model, texts = write_sentence(tmp_path / "model", dense=[(4, "activation.Tanh", True)]), ["the cat sat", "dog", ""]
    with LocalRoles(tmp_path / "served", model, embedding="client") as roles:
        roles.wait_ready()
        with connect(one_by_one(roles)) as client:
            out = client.infer(texts)
        assert main(["deal", "--settings", str(roles.settings("party1")), "--count", "1", "--lengths", "5"]) == 0
        roles.stop("dealer")
        stored = ask(roles, texts[0])
        with connect(roles.settings("client")) as client:
            public, one = client.public, np.ones(1, np.int64)
            mask, hidden = np.ones((1, 1), dtype=bool), public.inputs.hidden
            for words in (np.zeros((1, public.inputs.columns), np.uint64), np.zeros((1, hidden), np.uint32)):
                half = Half(fresh_seed().hex()[:ID_DIGITS], public.digest, one, mask, words=words)
                with pytest.raises(InputError, match=rf"words must be uint64 of shape \(1, {hidden}\), "
                                                     rf"got {words.dtype} \(1, "):
                    client._ways[0].parties[0].infer(half)
        tables = roles.role_folder("client") / "model" / FILE
        tables.rename(tables.with_suffix(".gone"))
        with pytest.raises(ModelError, match=r"tables.safetensors is missing: in this model, clients hold"):
            ask(roles, texts)
    wanted = plain_bert(model, texts)
    np.testing.assert_allclose(out.embeddings, wanted.embeddings, rtol=0, atol=2e-3)
    np.testing.assert_allclose(stored.embeddings[0], wanted.embeddings[0], rtol=0, atol=2e-3)
    with SecureModel.from_pretrained(model, backend="numpy", embedding="client") as inside:
        inside.provision()
        here = inside(texts)
    np.testing.assert_allclose(out.embeddings, here.embeddings, rtol=0, atol=2e-3)
    assert out.cost is not None and here.cost is not None
    assert (out.cost.bytes, out.cost.rounds, out.cost.dealer_bytes) == (
        here.cost.bytes, here.cost.rounds, here.cost.dealer_bytes)


def test_a_connection_serves_several_questions(up: LocalRoles) -> None:
    with connect(up.settings("client")) as model:
        for texts in (TEXT, ["Dull.", "Fine."], {"input_ids": [[2, 7, 9, 3]]}):
            right(model.infer(texts), texts)


def test_bad_texts_are_refused_before_anything_is_sent(up: LocalRoles) -> None:
    before = serials(up, "dealer")
    with connect(up.settings("client")) as model, pytest.raises(InputError):
        model.infer(["x " * 4000])
    assert serials(up, "dealer") == before


def test_query_prints_the_answer(up: LocalRoles, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--settings", str(up.settings("client")), "--json", TEXT]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["labels"] == ["positive"] and facts["cost"]["rounds"] > 0
    assert main(["query", "--settings", str(up.settings("client")), TEXT]) == 0
    assert "positive" in capsys.readouterr().out


def test_health_and_metrics(up: LocalRoles) -> None:
    ask(up)
    for rank in (0, 1):
        assert fetch(up, rank, "/healthz")[0] == 200
        assert fetch(up, rank, "/readyz") == (200, "ready\n")
        status, text = fetch(up, rank, "/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert status == 200 and float(values["secformer_ready"]) == 1
        assert float(values['secformer_requests_total{outcome="answered"}']) >= 1
        assert float(values["secformer_rounds_total"]) > 50 and float(values["secformer_sent_bytes_total"]) > 1e5
        assert float(values["secformer_waiting_requests"]) == 0


def test_logs_are_json_without_secrets(up: LocalRoles) -> None:
    ask(up, "an unmistakable sentence")
    for role in ("dealer", "party0", "party1"):
        lines = log_lines(up, role)
        assert {"time", "level", "role", "event"} <= set(lines[0])
        text = up.log(role).read_text()
        assert "unmistakable" not in text
        state = next((up.role_folder(role) / "state").glob("epoch-*.json"))
        assert all(seed not in text for seed in json.loads(state.read_text())["seeds"].values())


def test_each_role_keeps_its_own_secrets(up: LocalRoles) -> None:
    ask(up)
    files = {role: {path.name: path for path in (up.role_folder(role) / "state").glob("epoch-*.json")}
             for role in ("dealer", "party0", "party1")}
    (epoch,) = set.intersection(*map(set, files.values()))
    seeds = {role: json.loads(found[epoch].read_text())["seeds"] for role, found in files.items()}
    assert set(seeds["party0"]) == {"0"} and set(seeds["party1"]) == {"1"} and set(seeds["dealer"]) == {"0", "1"}
    assert seeds["dealer"] == seeds["party0"] | seeds["party1"]
    for role in ("dealer", "party0", "party1"):
        for path in (up.role_folder(role) / "state").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


def test_material_made_ahead_serves_without_the_dealer(up: LocalRoles, capsys: pytest.CaptureFixture[str]) -> None:
    party1 = str(up.settings("party1"))
    stored = sum(" stored =" in line for line in serials(up, "party1"))
    tokens = int(ask(up).attention_mask.sum())
    assert main(["deal", "--settings", party1, "--count", "1", "--lengths", "3"]) == 0  # used later than what follows
    assert "Stored material for 1" in capsys.readouterr().out
    assert main(["deal", "--settings", party1, "--count", "2", "--lengths", str(tokens), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == 2
    until(lambda: 'secformer_material_left{plan="' in fetch(up, 1, "/metrics")[1])  # told without a request
    up.stop("dealer")
    try:
        assert main(["deal", "--settings", party1, "--count", "1", "--lengths", str(tokens)]) == 1
        assert "dealer" in capsys.readouterr().err
        right(ask(up))
        up.stop("party1", signal.SIGKILL)  # what is stored outlives the party
        up.start("party1")
        up.wait_ready()
        right(ask(up))
        right(ask(up, "Dull"), "Dull")  # 3 tokens: dealt before, used after
        with pytest.raises(ProtocolError, match="the dealer does not answer"):
            ask(up)
    finally:
        up.start("dealer")
    until(lambda: answered(up))
    assert sum(" stored =" in line for line in serials(up, "party1")) == stored + 3
    no_serial_twice(up)


def answered(up: LocalRoles) -> bool:
    try:
        right(ask(up))
    except ProtocolError:
        return False
    return True


@pytest.mark.slow
def test_forty_requests_of_ten_clients(up: LocalRoles) -> None:
    """All are answered, rightly; memory, threads and descriptors stay."""
    names = [f"client{i}" for i in range(10)]
    for name in names:
        issue(up.folder / "roles", "client", name=name)
        text = up.settings("client").read_text().replace("client.pem", f"../{name}/{name}.pem")
        (up.role_folder("client") / f"{name}.toml").write_text(text.replace("client.key", f"../{name}/{name}.key"))
    texts = [TEXT, "Dull.", "not bad at all"]

    def ten(name: str) -> None:
        with connect(up.role_folder("client") / f"{name}.toml") as model:
            for i in range(4):
                right(model.infer(texts[i % 3]), texts[i % 3])

    def held() -> dict[str, tuple[int, int, int]]:
        found = {}
        for role, process in up.processes.items():
            status = Path(f"/proc/{process.pid}/status").read_text()
            facts = dict(line.split(":", 1) for line in status.splitlines())
            found[role] = (int(facts["VmRSS"].split()[0]), int(facts["Threads"]),
                           len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
        return found

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(ten, names[:2]))  # warm
        before = held()
        list(pool.map(ten, names))
    until(lambda: all(now[1] <= before[role][1] + 1 and now[2] <= before[role][2]  # soon after the last answer
                      for role, now in held().items()))
    for role, (memory, _, _) in held().items():
        assert memory < before[role][0] * 1.2 + 20_000, role
    until(lambda: set(names) <= {line["client"] for line in log_lines(up, "party0") if line["event"] == "answered"})
    no_serial_twice(up)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_roles_end_in_order(up: LocalRoles, how: int) -> None:
    for role in ("party1", "party0", "dealer"):
        process = up.processes.pop(role)
        process.send_signal(how)
        assert process.wait(20) == 0, role
        assert log_lines(up, role)[-1]["event"] == "ended"


def test_up_runs_everything_and_ends_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "secformer", "up", "--gateway", "0", str(demo_model()), "--folder", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    command = next(line for line in lines if "secformer query" in line).split()
    settings = command[command.index("--settings") + 1]
    done = subprocess.run([sys.executable, "-m", "secformer", "query", "--settings", settings, "--json", TEXT],
                          capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["labels"] == ["positive"]
    url = next(line for line in lines if "gateway" in line).split()[-1].rstrip(".")
    asked = Request(f"{url}/classify", json.dumps({"model": "demo", "input": TEXT}).encode(),
                    {"Content-Type": "application/json"})
    with urlopen(asked) as answer:
        assert json.loads(answer.read())["data"][0]["prediction"] == "positive"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    rest = process.stderr.read()
    process.stderr.close()
    assert "ended" in rest
    for role in ("dealer", "party0", "party1"):
        assert json.loads((tmp_path / f"{role}.log").read_text().splitlines()[-1])["event"] == "ended"


def test_long_questions_come_in_one_piece(up: LocalRoles) -> None:
    out = ask(up, LONG)
    right(out, LONG)
    assert out.probabilities is not None and np.isfinite(out.probabilities).all()


def test_the_manuals_client(up: LocalRoles, root: Path, monkeypatch: pytest.MonkeyPatch,
                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(up.role_folder("client"))
    source = (root / "docs/using.md").read_text("utf-8").split("```py\n")[1].split("```")[0]
    exec(compile(source, "using.md", "exec"), {"__name__": "manual"})
    assert capsys.readouterr().out == "['positive']\n"
