"""Writes valid examples of every form into the corpus, by the package's own writers: python -m fuzz.seeds

`tests/labs` makes the tiny model. `fuzz/targets/client` is its clients' folder, which several targets read.
`fuzz/targets/authority.pem` is the authority of the kept tokens.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.target import CORPUS, scratch
from fuzz.targets import batch, bodies, browsers, channels, state
from secformer.batch.folder import FORMAT as JOBS
from secformer.cells.drained import HEADER
from secformer.models.data.batch import Batch, Row, blind_batch
from secformer.models.data.saved_tokenizer import FACTS
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.tables import FILE
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.names import NONCE_BYTES
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.meter import Cost
from secformer.mpc.net.tls import Handshake, Identity, client_context
from secformer.mpc.net.wire import NOTE, Tag, pack_header
from secformer.mpc.ops import zero
from secformer.mpc.party import Party
from secformer.mpc.prg import FORMAT
from secformer.mpc.sessions.secure import SecureSession
from secformer.roles.certificates import AUTHORITY, AUTHORITY_DAYS, ISSUED, init, issue
from secformer.roles.epochs import Epoch, as_note
from secformer.roles.link import Offer, Reply, Taken
from secformer.roles.messages import Answer, Half, StepRequest, pack_answer, pack_half
from secformer.roles.signing import Signer
from secformer.roles.telling import Told
from secformer.roles.tokens import MOST_REQUESTS, make
from secformer.version import __version__

HEX = "ab" * 16
CLIENT = Path(__file__).parent / "targets" / "client"
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "vocab_size": 9,
         "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 1, "intermediate_size": 8,
         "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "eos_token_id": 2}
NONCE = bytes(range(NONCE_BYTES))


def put(name: str, *examples: bytes | Any) -> None:
    """Adds examples of a target; what is not bytes is written as JSON."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, example in enumerate(examples):
        (folder / f"valid-{i}").write_bytes(example if isinstance(example, bytes) else json.dumps(example).encode())


def heard(value: Any) -> dict[str, Any]:
    told = channels.Told()
    value.tell(told)
    return told.note


def notes() -> None:
    data = np.arange(8, dtype=np.uint8).tobytes()
    frame = pack_header(Tag(7, "product", 48, 3), len(data)) + data
    put("header", pack_header(Tag(7, "product", 48, 3), 18), pack_header(Tag(0, "note", 8, 2), 2, NOTE))
    put("frames", frame, frame + channels.noted(b'{"go": true, "error": ""}') + frame)
    put("offers",
        heard(Offer({HEX: "alice", HEX[::-1]: "bob"}, {"live": 4, "stored": -1}, 1, here=(HEX,), nonce=NONCE)),
        heard(Offer({}, {"live": 4}, renew=True, nonce=NONCE)))
    put("takes", heard(Reply(Taken(HEX, "s", "p", "live", 5, "", "x", client="alice", nonce=NONCE), (HEX,))),
        heard(Reply(Taken(HEX, error="no"))), heard(Reply(renew=True)))
    put("hellos", {"same": channels.SAME, "rank": 1, "opened": False, "stored": [[0, 3], [7, 8]]})
    put("places", {"link": HEX, "place": 0, "places": 3})
    epoch = Epoch.fresh()
    epoch.runs["live"][0].drop(0, 3)
    put("joins", as_note(epoch, 0), as_note(epoch), as_note(epoch, 1, runs=False))
    put("serial", {"serial": 7})


def messages() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 0]], bool)
    lengths = np.array([3, 2])
    words = np.arange(5 * bodies.INPUTS.hidden, dtype=np.uint64).reshape(5, -1)
    one = np.ones((1, 2), bool)
    halves = (pack_half(Half(HEX, "cd" * 32, lengths, mask, words=words)),
              pack_half(Half(HEX, "cd" * 32, lengths, mask, seed=bytes(32))),
              pack_half(Half(HEX, "cd" * 32, np.array([2]), one, seed=bytes(32), step=StepRequest(HEX, 4, 2))))
    cost = Cost("total", 0.5, 0.25, 10, 20, 3, 4, 5)
    cost.child("linear").bytes = 7
    answer = pack_answer(Answer({"logits": np.arange(4, dtype=np.uint64).reshape(2, 2)}, 16, cost), bodies.REQUEST)
    put("halves", *halves)
    batch = Batch(tuple(Row(np.array(ids), np.array([0, 1]), np.ones(2, np.int64)) for ids in ([3, 39], [0, 17])))
    put("keys", *(pack_half(Half(HEX, "cd" * 32, batch.lengths, batch.mask, keys=keys))
                  for keys in bodies.INPUTS.keys(batch, bytes(32))))
    put("answers", answer)
    reply = b"HTTP/1.1 %s\r\nContent-Type: application/%s\r\nContent-Length: %d\r\n\r\n%s"
    problem = json.dumps({"error": {"kind": "queue full", "message": "wait", "request": HEX}}).encode()
    digest = json.dumps({"digest": "cd" * 32}).encode()
    status = json.dumps(Told(__version__, FORMAT, "cd" * 32, "01234567", "", 3, 2, 40).facts()).encode()
    put("parties-answers", *(reply % (status, kind, len(body), body) for status, kind, body in (
        (b"200 OK", b"octet-stream", answer), (b"200 OK", b"json", digest), (b"503 No", b"json", problem),
        (b"200 OK", b"json", status))))


def requests() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "refusal": None}, {"role": "user", "content": "c"}]
    put("gateway-bodies", {"model": "m", "input": "a"}, {"model": "m", "input": ["a", "b"]},
        {"model": "m", "input": [[1, 2], [3]]}, {"model": "m", "documents": ["a", {"text": "b"}]},
        {"model": "m", "prompt": [1, 2], "stop": ["a"], "temperature": 0.5, "top_p": 1, "seed": 3},
        {"model": "m", "messages": chat, "temperature": 0, "top_k": 4, "repetition_penalty": 1.1, "stop": "a"})


def of_model(folder: Path) -> None:
    """Examples about a tiny BERT, whose clients hold the tables, so that its files are small."""
    from checkpoints import write_checkpoint

    path = write_checkpoint(folder / "model", hidden_size=4, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=4, max_position_embeddings=8)
    profile = measure(ModelFolder(path))
    profile.save(folder / "profile.json")
    public = write_shares(path, folder / "shares", embedding="client", profile=profile)
    put("profile", (folder / "profile.json").read_bytes())
    put("description", public.to_json().encode())
    put("share-file", *((folder / "shares" / f"party{rank}.safetensors").read_bytes() for rank in (0, 1)))
    put("tables", (folder / "shares" / CLIENT_FOLDER / FILE).read_bytes())
    put("tokenizer-facts", (folder / "shares" / CLIENT_FOLDER / FACTS).read_bytes())
    put("checkpoint", (path / "model.safetensors").read_bytes())
    shutil.rmtree(CLIENT, ignore_errors=True)
    CLIENT.mkdir()
    (CLIENT / "public.json").write_text(public.to_json() + "\n", "utf-8")
    _plans(public)
    _ports(public)
    config = json.loads((path / "config.json").read_text("utf-8"))
    pooling = {"word_embedding_dimension": 4, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")))]
    dense = {"in_features": 4, "out_features": 3, "bias": True,
             "activation_function": "torch.nn.modules.activation.Tanh"}
    put("folder", {"config.json": config, "generation_config.json": {"eos_token_id": [1, 2]}},
        {"config.json": config, "modules.json": modules, "1_Pooling/config.json": pooling, "2_Dense/config.json": dense,
         "sentence_bert_config.json": {"max_seq_length": 6, "do_lower_case": False},
         "tokenizer_config.json": {"model_max_length": 8},
         "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": "query"}},
        {"config.json": LLAMA, "model.safetensors.index.json": {"weight_map": {"a": "model-1.safetensors"}}})


def _plans(public: PublicModel) -> None:
    model = PartyModel(public, SecureSession(Party(1, public.fixed, NumpyKernels(choose_backend("numpy")))))
    sizes = np.array([2, 1])
    whole = model.plan(blind_batch(sizes, np.arange(2) < sizes[:, None]))
    kinds = {type(kind): kind for kind in (*whole.kinds, zero.KIND)}
    plan = Plan(tuple(kinds.values()), whole.rounds, whole.bytes, whole.constants)
    weights = Plan(model.provisioning.kinds[:2])
    put("plan", plan.as_dict(), state.STORED.as_dict(), weights.as_dict())
    own = {"version": __version__, "streams": FORMAT, "model": "ab" * 32, "weights": weights.as_dict()}
    deal = {"ask": "deal", "epoch": "ef" * 16, "space": "live", "after": -1, "count": 1, "kept": [],
            "nonces": [NONCE.hex(), NONCE.hex()]}
    put("dealer", own | {"ask": "join", "runs": True}, own | deal | {"plan": state.STORED.as_dict(), "cache": None},
        own | deal | {"plan": state.STORED.as_dict(), "cache": None, "space": "stored", "nonces": ["", NONCE.hex()]},
        own | deal | {"plan": state.STORED.as_dict(), "cache": "", "request": HEX, "trace": HEX})


def _ports(public: PublicModel) -> None:
    request = b"%s %s HTTP/1.1\r\nHost: party0\r\nContent-Length: %d\r\n\r\n%s"
    sizes, mask = np.array([2]), np.ones((1, 2), bool)
    words = np.zeros((2, public.inputs.hidden), np.uint64)
    halves = (pack_half(Half(HEX, public.digest, sizes, mask, words=words)),
              pack_half(Half(HEX, public.digest, sizes, mask, seed=bytes(32))))
    put("clients-port", *(request % (b"POST", b"/v1/infer", len(half), half) for half in halves),
        *(request % (b"GET", path, 0, b"") for path in (b"/v1/model", b"/v1/hello")),
        request % (b"DELETE", b"/v1/sessions/" + HEX.encode(), 0, b""),
        b"POST /v1/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        request % (b"GET", b"/v1/status", 0, b""))
    put("health-port", *(request % (b"GET", path, 0, b"") for path in (b"/healthz", b"/readyz", b"/metrics")))


def of_roles(folder: Path) -> None:
    init(folder)
    for role, target in (("party0", "party"), ("dealer", "dealer"), ("client", "client")):
        put(f"{target}-settings", _without_comments((folder / role / f"{role}.toml").read_text("utf-8").splitlines()),
            *([(folder / role / f"{role}.toml").read_bytes()] if role == "dealer" else []))
    put("cells", b'[[cell]]\nname = "a"\nsettings = "a.toml"\n[[cell]]\nname = "b"\nsettings = "b.toml"\n')
    put("drained", HEADER.encode() + b"a\n")
    budgets = b"requests_per_day = 5\n[budgets.clients.alice]\ntexts_per_day = 7\n"
    pages = b'[browsers]\naddress = "127.0.0.1:8444"\norigins = ["https://page.example", "http://localhost:8000"]\n'
    put("party-settings", *((CORPUS / "party-settings" / "valid-0").read_bytes() + more for more in (
        b"", budgets, pages)))
    issue(folder, "client", name="alice")
    row = json.loads((folder / AUTHORITY / ISSUED).read_text("utf-8").splitlines()[-1])
    put("issued", row | {"until": "2999-12-31T23:59:59+00:00"})
    own = folder / "client"
    hands = Handshake(client_context(Identity(own / "authority.pem", own / "client.pem", own / "client.key")),
                      server=False, expected="party0")
    hands.complete(b"")
    put("first-bytes", hands.outgoing.read(), b"GET / HTTP/1.1\r\n\r\n")
    put("revoked", b"", b"\0\1\0\40\0", b"\x80\1\0\40\0")
    put("identity", b"", b"\1\0\40\0")
    put("authority", b"", b"\1\0\40\0")


def of_browsers(folder: Path) -> None:
    init(folder, days=AUTHORITY_DAYS)
    shutil.copy(folder / AUTHORITY / "authority.pem", browsers.AUTHORITY)
    own = folder / "client"
    signer = Signer(Identity(own / "authority.pem", own / "client.pem", own / "client.key"))
    tokens = [make(signer, 0, browsers.MODEL, seconds, MOST_REQUESTS, now=browsers.made()).encode()
              for seconds in (900, 60)]
    put("tokens", *tokens)
    half = (CORPUS / "clients-port" / "valid-0").read_bytes().partition(b"\r\n\r\n")[2]
    origin = b"Host: party0\r\nOrigin: %s\r\n" % browsers.ORIGIN.encode()
    bearer = b"Authorization: Bearer %s\r\n" % tokens[0]
    put("browsers-port", b"POST /v1/infer HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (
            origin, bearer, len(half), half),
        b"GET /v1/model HTTP/1.1\r\nHost: party0\r\n%s\r\n" % bearer, b"GET /v1/model HTTP/1.1\r\n%s\r\n" % origin,
        b"OPTIONS /v1/infer HTTP/1.1\r\n%sAccess-Control-Request-Method: POST\r\n\r\n" % origin)


def _without_comments(lines: Iterable[str]) -> bytes:
    return "\n".join(line for line in lines if line and not line.startswith("#")).encode() + b"\n"


def of_state(folder: Path) -> None:
    put("epoch", state.epoch_file(folder / "state"), state.epoch_file(folder / "used", 5))
    put("budgets", b'[20000, "alice", 3, 5]',
        b'[19999, "bob", 1, 1]\n[20000, "bob", 1, 7]\n[20000, "alice", 0, 0]')
    journal = b"%s live 4\n%s stored =5\n%s stored =7-9\n" % ((b"ef" * 16,) * 3)
    put("journal", journal, journal + b"cut")
    file = state.sealed(folder)
    put("store", b"\n" + file, b"6\n" + file)


def of_batch() -> None:
    put("rows-json", b'{"id": 5, "text": "a"}\n\n{"text": "b", "id": [1]}\n', b'{"id": 1, "text": null}\n{\n')
    put("rows-csv", b'id,text\n5,"a ""b"",\nc"\n\n7,d\n1,2,3\n')
    put("job", {"format": JOBS, **batch.FACTS})
    put("job-done", {"rows": 1, "failed": 0, "marked": 0, "answered": 1, "seconds": 0.5, "bytes": 7, "cells": []})


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "labs"))
    with scratch() as folder:
        notes()
        messages()
        requests()
        of_model(folder / "of_model")
        of_roles(folder / "roles")
        of_browsers(folder / "browsers")
        of_state(folder / "store")
        of_batch()


if __name__ == "__main__":
    main()
