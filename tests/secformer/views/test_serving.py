"""What operators are shown: material that was stored."""

from __future__ import annotations

from views_lab import printed

from secformer.roles.stocking import Stocked
from secformer.views.serving import deal, deal_json

STOCKED = Stocked("plan", (16, 3), 2, 5, 1_500_000, "")


def test_stored_material() -> None:
    text = printed(deal(STOCKED))
    assert "Stored material for 2 request(s) of 16, 3 tokens, 1.5 MB per request." in text
    assert "now serves 5 such request(s)" in text


def test_json() -> None:
    assert deal_json(STOCKED) == {"plan": "plan", "lengths": [16, 3], "added": 2, "left": 5, "bytes_each": 1_500_000,
                                  "problem": ""}
