"""Plans, as notes and files carry them."""

from __future__ import annotations

import json
from typing import Any

from fuzz.mutators import json_text
from fuzz.target import Target, require, stateless
from secformer.mpc.dealer.plan import FORMAT, KINDS, Plan
from secformer.mpc.strict_json import read_own


def signed(facts: Any) -> Any:
    """The facts of a plan, with the digest that fits them, wherever in a note they are."""
    if isinstance(facts, dict) and "kinds" in facts:
        kinds = tuple(KINDS[name](*map(_frozen, values)) for name, *values in facts["kinds"])
        digest = Plan(kinds, facts["rounds"], facts["bytes"], facts["constants"]).digest
        return facts | {"format": FORMAT, "digest": digest}
    return {key: signed(value) for key, value in facts.items()} if isinstance(facts, dict) else facts


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def plans(data: bytes) -> None:
    """A plan that is accepted can be laid out, and written again it is the same JSON."""
    try:
        facts = read_own(data)
    except ValueError:
        return
    if not isinstance(facts, dict):
        return
    plan = Plan.from_dict(facts)
    written = plan.as_dict()
    require({key: facts[key] for key in written} == json.loads(json.dumps(written)), "a plan has one spelling")
    require(sum(nbytes for _, nbytes in plan.corrections()) == plan.dealer_bytes, "its parcels hold its bytes")


TARGETS = (Target("plan", ("mpc/dealer/plan.py",), stateless(plans), json_text(signed)),)
