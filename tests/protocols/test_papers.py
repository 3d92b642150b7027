"""Citations are data, and none is missing."""

from __future__ import annotations

import inspect

import pytest

from secformer.mpc.errors import SettingsError
from secformer.mpc.session import Session
from secformer.protocols.exp import is_cut
from secformer.protocols.papers import PAPERS, citations, cite, protocol_modules
from secformer.protocols.ranges import bounded


def protocols() -> dict[str, object]:
    """Every public function of the package that takes a session, but those that compute nothing."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": function
        for module in protocol_modules()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        and next(iter(inspect.get_annotations(function).values()), None) == Session.__name__
        and function not in (bounded, is_cut)
    }


def test_every_protocol_is_cited() -> None:
    found = protocols()
    assert {"gelu.gelu_segmented", "softmax.softmax_series", "layernorm.layernorm_goldschmidt", "exp.exp"} <= set(found)
    cited = {c.function for c in citations()}
    assert set(found) - cited == set()


def test_every_paper_is_used_and_every_citation_known() -> None:
    used = {c.citation.paper_key for c in citations()}
    assert used == set(PAPERS)
    for c in citations():
        assert c.citation.where and c.citation.paper is PAPERS[c.citation.paper_key]


def test_a_function_may_cite_several_in_reading_order() -> None:
    @cite("luo2024secformer", "Algorithm 2")
    @cite("goldschmidt1964", "division")
    def divide() -> int:
        return 7

    marks = divide.__citation__  # type: ignore[attr-defined]
    assert [m.paper_key for m in marks] == ["luo2024secformer", "goldschmidt1964"]
    assert divide() == 7


def test_an_unknown_paper_is_refused() -> None:
    with pytest.raises(SettingsError, match="no paper has the key 'nobody1999'"):
        cite("nobody1999", "everything")


def test_papers_read_well() -> None:
    for paper in PAPERS.values():
        assert str(paper).endswith(".") and str(paper.year) in str(paper) and paper.title in str(paper)


def test_papers_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PAPERS["x"] = next(iter(PAPERS.values()))  # type: ignore[index]
