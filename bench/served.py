"""Served roles: the cost of processes and TLS, their answers, the cost of a network, requests in flight, and endurance.

    python bench/served.py overhead --shape base --tokens 128       seconds beside those of the in-process run
    python bench/served.py answers [--model FOLDER]                 errors against plaintext and the in-process run
    python bench/served.py networks --shape mini --tokens 32        seconds on slowed links, beside the prediction
    python bench/served.py flight --shape mini --texts 8 --tokens 32  seconds of a batch on slowed links, one request
                                                                    or two in flight
    python bench/served.py endurance --requests 1000                memory, descriptors and threads over mixed lengths

Every answer is verified before its time counts. A relay (bench/relay.py) in front of party 0's link makes the network.
Corrections are made ahead, so that only the online part is measured, as it is predicted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bert import SHAPES, TOLERANCE, VOCAB, checkpoint
from relay import Relay
from report import RESULTS, record

from secformer import SecureModel, connect, demo_model, plain_bert
from secformer.models.data.batch import Row, batches
from secformer.models.run.local import twin
from secformer.models.run.networks import LAN, NETWORKS, WAN, Network
from secformer.mpc.net.tcp import free_ports
from secformer.roles.settings import load_client, load_party
from secformer.roles.stocking import stock
from secformer.roles.trial import LocalRoles

TARGETS = {"overhead": 1.3, "prediction": 0.2}
SENTENCE = ("a wonderful film full of warmth and wit that never once outstays its welcome although the plot is thin "
            "and the ending comes too soon for those who had hoped for more of the same")
WORDS = tuple(SENTENCE.split(" "))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "answers", "networks", "flight", "endurance"))
    parser.add_argument("--model", type=Path, help="a Hugging Face folder (default: random weights of --shape, or the "
                                                   "shipped model)")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--texts", type=int, default=8, help="texts of a call, for `flight`")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of each text of a call, for `flight`")
    parser.add_argument("--recipe", default="auto")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as at:
        model = folder_of(args, Path(at))
        return int(globals()[args.what](args, model, Path(at)))


def folder_of(args: argparse.Namespace, at: Path) -> Path:
    if args.model is not None or args.shape is None:
        return Path(args.model or demo_model())
    layers, hidden, heads = SHAPES[args.shape]
    folder = at / "checkpoint"
    folder.mkdir()
    checkpoint(folder, layers, hidden, heads, 0)
    return folder


def ids_of(tokens: int, vocab: int = VOCAB, texts: int = 1) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(5, vocab, (texts, tokens))
    return {"input_ids": ids}


@contextmanager
def running(args: argparse.Namespace, model: Path, at: Path) -> Iterator[LocalRoles]:
    with LocalRoles(at / "served", model, recipe=args.recipe, untrained_recipe=True) as roles:
        roles.wait_ready(600.0, lambda reason: print(f"  {reason}", file=sys.stderr))
        yield roles


def largest(a: Any, b: Any) -> float:
    names = ("logits", "last_hidden_state", "pooler_output")
    return max(float(np.abs(getattr(a, n) - getattr(b, n)).max()) for n in names if getattr(b, n) is not None)


def verified(error: float) -> float:
    if not error <= TOLERANCE:
        raise SystemExit(f"the answer is off by {error:.3g}: nothing is recorded")
    return error


def overhead(args: argparse.Namespace, model: Path, at: Path) -> int:
    """Alternates between the in-process model and the served one, and compares the medians of their seconds."""
    texts = ids_of(args.tokens) if args.shape else " ".join((WORDS * 40)[: args.tokens])
    with ExitStack() as stack:
        near = stack.enter_context(SecureModel.from_pretrained(model, recipe=args.recipe, backend="numpy",
                                                                     untrained_recipe=True))
        roles = stack.enter_context(running(args, model, at))
        far = stack.enter_context(connect(roles.settings("client")))
        expected = twin(model, texts, recipe=args.recipe, profile=near.profile, untrained_recipe=True)
        errors = [verified(largest(near(texts), expected)), verified(largest(far.infer(texts), expected))]
        inside, served = [], []
        for _ in range(args.repeat):
            for answer, times in ((near, inside), (far.infer, served)):
                started = time.perf_counter()
                out = answer(texts)
                times.append(time.perf_counter() - started)
        cost = out.cost
    ratio = statistics.median(served) / statistics.median(inside)
    print(f"in process {statistics.median(inside):.2f} s, served over TLS {statistics.median(served):.2f} s: "
          f"{ratio:.2f} times (target {TARGETS['overhead']})")
    assert cost is not None
    record(f"served-overhead-{args.shape or 'demo'}-{args.tokens}", {
        "tokens": args.tokens, "recipe": args.recipe, "errors_to_the_twin": errors, "in_process_seconds": inside,
        "served_seconds": served, "ratio_of_medians": ratio, "target": TARGETS["overhead"],
        "online_bytes": cost.bytes, "rounds": cost.rounds, "dealer_bytes": cost.dealer_bytes,
    }, args.out)
    return 0 if ratio <= TARGETS["overhead"] else 1


def answers(args: argparse.Namespace, model: Path, at: Path) -> int:
    texts = [" ".join(WORDS[i : i + n]) for i, n in enumerate((1, 3, 8, 15, 24))]
    exact = plain_bert(model, texts)
    with SecureModel.from_pretrained(model, recipe=args.recipe, backend="numpy", untrained_recipe=True) as near:
        inside = near(texts)
    with running(args, model, at) as roles, connect(roles.settings("client")) as far:
        served = far.infer(texts)
    facts = {"in_process_to_plaintext": largest(inside, exact), "served_to_plaintext": largest(served, exact),
             "served_to_in_process": largest(served, inside), "labels_equal": served.labels == inside.labels,
             "labels": served.labels}
    print(facts)
    verified(facts["served_to_in_process"])
    record(f"served-answers-{model.name}", {"model": model.name, "recipe": args.recipe, "texts": len(texts), **facts},
           args.out)
    return 0 if served.labels == inside.labels == exact.labels else 1


def networks(args: argparse.Namespace, model: Path, at: Path) -> int:
    """The online time of one request, measured through a relay and predicted from the loopback's measurement."""
    texts = ids_of(args.tokens, 1000)
    rows, failed = [], False
    with LocalRoles(at / "served", model, recipe=args.recipe, untrained_recipe=True) as roles:
        roles.wait_ready(600.0)
        settings = load_party(roles.settings("party1"))
        stock(settings, [args.tokens], args.repeat * (1 + len(NETWORKS)) + 1)
        with connect(roles.settings("client")) as far:
            reference = far.infer(texts)
            costs = [far.infer(texts).cost for _ in range(args.repeat)]
        near = min((c for c in costs if c is not None), key=lambda c: c.seconds)
        for network in (LAN, WAN):
            with slowed(roles, network), connect(roles.settings("client")) as far:
                outs = [far.infer(texts) for _ in range(args.repeat)]
            verified(max(largest(out, reference) for out in outs))
            measured = statistics.median(out.cost.seconds for out in outs if out.cost is not None)
            predicted = network.online(near)
            off = measured / predicted - 1.0
            failed |= abs(off) > TARGETS["prediction"]
            print(f"{network.name} ({network}): measured {measured:.2f} s, predicted {predicted:.2f} s ({off:+.0%})")
            rows.append({"network": network.name, "described": str(network), "measured": measured,
                         "predicted": predicted, "off": off})
    record(f"served-networks-{args.shape or 'demo'}-{args.tokens}", {
        "tokens": args.tokens, "recipe": args.recipe, "loopback_seconds": near.seconds, "rounds": near.rounds,
        "online_bytes": near.bytes, "rows": rows, "target": TARGETS["prediction"],
    }, args.out)
    return int(failed)


@contextmanager
def slowed(roles: LocalRoles, network: Network) -> Iterator[None]:
    """Starts party 1 again behind a relay."""
    settings = roles.settings("party1")
    original, port = settings.read_text("utf-8"), free_ports(1)[0]
    with Relay(port, roles.ports["link"], network):
        roles.stop("party1")
        settings.write_text(original.replace(f"127.0.0.1:{roles.ports['link']}", f"127.0.0.1:{port}"), "utf-8")
        roles.start("party1")
        roles.wait_ready(600.0)
        yield
        settings.write_text(original, "utf-8")


def flight(args: argparse.Namespace, model: Path, at: Path) -> int:
    """A call of several texts, by a client that sends one request at a time and by one that sends two, in turns. With
    two, a single batch is cut in halves. Seconds are the client's, from the call to its answer."""
    lengths, rows = np.array(args.lengths or [args.tokens] * args.texts), []
    texts = ids_of(lengths.max(), 1000, lengths.size)
    texts["attention_mask"] = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    each = [Row(np.zeros(n, int), np.zeros(n, int), np.ones(n, int)) for n in lengths]
    with LocalRoles(at / "served", model, recipe=args.recipe, untrained_recipe=True) as roles:
        roles.wait_ready(600.0)
        settings, client = load_party(roles.settings("party1")), load_client(roles.settings("client"))
        client = replace(client, batch_tokens=max(client.batch_tokens, lengths.size * int(lengths.max())))
        for in_flight in (1, 2):
            for _, batch in batches(each, client.batch_tokens, in_flight):
                stock(settings, batch.lengths.tolist(), args.repeat * 3 + 1)
        with connect(replace(client, in_flight=1)) as one, connect(replace(client, in_flight=2)) as two:
            reference = one.infer(texts)
            two.infer(texts)
            for network in (None, LAN, WAN):
                with slowed(roles, network) if network else nullcontext():
                    seconds: dict[str, list[float]] = {"one": [], "two": []}
                    for _ in range(args.repeat):
                        for name, way in (("one", one), ("two", two)):
                            started = time.perf_counter()
                            out = way.infer(texts)
                            seconds[name].append(round(time.perf_counter() - started, 3))
                            verified(largest(out, reference))
                ratio = statistics.median(seconds["two"]) / statistics.median(seconds["one"])
                name = network.name if network else "loopback"
                print(f"{name}: {seconds}: two in flight take {ratio:.2f} times as long as one", flush=True)
                rows.append({"network": name, "described": str(network or "no relay"), "seconds": seconds,
                             "ratio_of_medians": round(ratio, 3)})
    name = "mixed" if args.lengths else f"{args.texts}x{args.tokens}"
    record(f"served-flight-{args.shape or 'demo'}-{name}", {
        "lengths": lengths.tolist(), "recipe": args.recipe, "rows": rows, "repeat": args.repeat,
        "load_average": os.getloadavg(),  # of what else ran: it takes the processors that the overlap needs
    }, args.out)
    return 0


def endurance(args: argparse.Namespace, model: Path, at: Path) -> int:
    """Sends many requests of mixed lengths. Records what each process holds after a tenth of them and at the end."""
    lengths = np.random.default_rng(1).integers(1, len(WORDS), args.requests)
    texts = [" ".join(WORDS[:n]) for n in lengths]
    wanted = {n: plain_bert(model, " ".join(WORDS[:n])) for n in sorted(set(lengths.tolist()))}
    with running(args, model, at) as roles, connect(roles.settings("client")) as far:
        samples, worst, started = [], 0.0, time.perf_counter()
        for i, (n, text) in enumerate(zip(lengths.tolist(), texts, strict=True)):
            worst = max(worst, verified(largest(far.infer(text), wanted[n])))
            if (i + 1) % max(1, args.requests // 10) == 0:
                samples.append({"after": i + 1} | {role: holdings(p.pid) for role, p in roles.processes.items()})
                print(samples[-1], file=sys.stderr)
        seconds = time.perf_counter() - started
    growth = {role: {key: samples[-1][role][key] - samples[len(samples) // 2][role][key] for key in samples[-1][role]}
              for role in samples[-1] if role != "after"}
    print(f"{args.requests} requests in {seconds:.0f} s, largest error {worst:.2g}; growth over the last half: "
          f"{growth}")
    record("served-endurance", {"requests": args.requests, "seconds": seconds, "largest_error": worst,
                                "samples": samples, "growth_over_last_half": growth}, args.out)
    flat = all(g["threads"] <= 0 and g["descriptors"] <= 0 and g["megabytes"] <= 16 for g in growth.values())
    return 0 if flat else 1


def holdings(pid: int) -> Mapping[str, float]:
    """The resident memory in MB, the open descriptors and the threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"megabytes": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"]),
            "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


if __name__ == "__main__":
    sys.exit(main())
