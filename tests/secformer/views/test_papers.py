"""The list of papers: every citation of a function stands with its paper."""

from __future__ import annotations

from views_lab import printed

from secformer.protocols.papers import PAPERS, citations
from secformer.views.papers import papers, papers_json


def test_every_paper_and_every_citation_is_listed() -> None:
    facts = {paper["key"]: paper for paper in papers_json()["papers"]}
    assert list(facts) == list(PAPERS)
    listed = {(key, use["name"], use["where"]) for key, paper in facts.items() for use in paper["functions"]}
    assert listed == {(c.citation.paper_key, c.function, c.citation.where) for c in citations()}
    text = printed(papers())
    assert all(paper.title.split()[0] in text for paper in PAPERS.values())
