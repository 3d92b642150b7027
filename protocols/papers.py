"""Where the protocols come from: citations are data beside the code, listed by `secformer papers`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

import secformer.protocols
from secformer.mpc.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Paper:
    """A publication: authors as printed in short form, year, title, venue."""

    authors: str
    year: int
    title: str
    venue: str

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.venue}."


PAPERS = MappingProxyType({
    "luo2024secformer": Paper(
        "Luo et al.", 2024, "SecFormer: Fast and Accurate Privacy-Preserving Inference for Transformer Models via SMPC",
        "Findings of ACL 2024, arXiv:2401.00793"),
    "li2023mpcformer": Paper(
        "Li et al.", 2023, "MPCFormer: Fast, Performant and Private Transformer Inference with MPC",
        "ICLR 2023, arXiv:2211.01452"),
    "dong2023puma": Paper(
        "Dong et al.", 2023, "PUMA: Secure Inference of LLaMA-7B in Five Minutes", "arXiv:2307.12533"),
    "ma2023secretflow": Paper(
        "Ma et al.", 2023, "SecretFlow-SPU: A Performant and User-Friendly Framework for Privacy-Preserving Machine "
        "Learning", "USENIX ATC 2023"),
    "lu2020root": Paper(
        "Lu, Fang, Wei, Liu", 2020, "Faster Secure Multiparty Computation of Adaptive Gradient Descent",
        "PPMLP 2020, doi:10.1145/3411501.3419427"),
    "knott2021crypten": Paper(
        "Knott et al.", 2021, "CrypTen: Secure Multi-Party Computation Meets Machine Learning",
        "NeurIPS 2021, arXiv:2109.00984"),
    "mohassel2017secureml": Paper(
        "Mohassel, Zhang", 2017, "SecureML: A System for Scalable Privacy-Preserving Machine Learning",
        "IEEE S&P 2017"),
    "zheng2023sine": Paper(
        "Zheng et al.", 2023, "Secure Softmax/Sigmoid for Machine-learning Computation",
        "ACSAC 2023, doi:10.1145/3627106.3627175"),
    "goldschmidt1964": Paper("Goldschmidt", 1964, "Applications of Division by Convergence", "M.Sc. thesis, MIT"),
    "markstein2004": Paper(
        "Markstein", 2004, "Software Division and Square Root Using Goldschmidt's Algorithms",
        "Conference on Real Numbers and Computers 6"),
    "huybrechs2010": Paper(
        "Huybrechs", 2010, "On the Fourier Extension of Nonperiodic Functions",
        "SIAM Journal on Numerical Analysis 47(6)"),
    "devlin2019bert": Paper(
        "Devlin et al.", 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
        "NAACL 2019, arXiv:1810.04805"),
    "reimers2019sbert": Paper(
        "Reimers, Gurevych", 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        "EMNLP 2019, arXiv:1908.10084"),
    "hendrycks2016gelu": Paper("Hendrycks, Gimpel", 2016, "Gaussian Error Linear Units", "arXiv:1606.08415"),
    "song2020mpnet": Paper(
        "Song et al.", 2020, "MPNet: Masked and Permuted Pre-training for Language Understanding",
        "NeurIPS 2020, arXiv:2004.09297"),
    "raffel2020t5": Paper(
        "Raffel et al.", 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        "JMLR 21(140), arXiv:1910.10683"),
    "he2021deberta": Paper(
        "He, Liu, Gao, Chen", 2021, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention",
        "ICLR 2021, arXiv:2006.03654"),
    "ba2016layernorm": Paper("Ba, Kiros, Hinton", 2016, "Layer Normalization", "arXiv:1607.06450"),
    "zhang2019rmsnorm": Paper(
        "Zhang, Sennrich", 2019, "Root Mean Square Layer Normalization", "NeurIPS 2019, arXiv:1910.07467"),
    "su2021roformer": Paper(
        "Su et al.", 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", "arXiv:2104.09864"),
    "shazeer2020glu": Paper("Shazeer", 2020, "GLU Variants Improve Transformer", "arXiv:2002.05202"),
    "vaswani2017attention": Paper("Vaswani et al.", 2017, "Attention Is All You Need", "NeurIPS 2017"),
})


@dataclass(frozen=True)
class Citation:
    """What a function takes from a paper: `where` names the algorithm, section or idea."""

    paper_key: str
    where: str

    @property
    def paper(self) -> Paper:
        return PAPERS[self.paper_key]


@dataclass(frozen=True)
class Cited:
    """A protocol function and one of its citations."""

    function: str
    citation: Citation


def cite(paper_key: str, where: str) -> Callable[[F], F]:
    """Decorator: stores a citation on the function, in reading order. Raises SettingsError for an unknown paper."""
    if paper_key not in PAPERS:
        raise SettingsError(f"no paper has the key {paper_key!r}; add it to PAPERS. Known: {', '.join(PAPERS)}")

    def mark(function: F) -> F:
        earlier: tuple[Citation, ...] = getattr(function, "__citation__", ())
        function.__citation__ = (Citation(paper_key, where), *earlier)  # type: ignore[attr-defined]
        return function

    return mark


def protocol_modules() -> list[ModuleType]:
    """The modules of this package, by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(secformer.protocols.__path__))
    return [importlib.import_module(f"secformer.protocols.{name}") for name in names]


def citations() -> list[Cited]:
    """Every citation of every protocol function, found on the functions themselves."""
    found = []
    for module in protocol_modules():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                where = f"{module.__name__.rpartition('.')[2]}.{name}"
                found += [Cited(where, c) for c in getattr(function, "__citation__", ())]
    return found
