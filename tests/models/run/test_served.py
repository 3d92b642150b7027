"""A party's side of a provisioned model: its plans follow the written series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secformer import demo_model
from secformer.models.data.batch import blind_batch
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.share_file import ShareFile, share_file
from secformer.mpc.errors import Desync
from secformer.mpc.party import Party
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.simulate import World


def test_parties_compute_with_the_written_series(provisioned: Path) -> None:
    """A description with other coefficients makes another plan: they are read from it, not fitted again."""
    public = PublicModel.load(provisioned / CLIENT_FOLDER)
    moved = {size: tuple(replace(f, cos=(f.cos[0] + 2.0**-30, *f.cos[1:])) for f in book)
             for size, book in public.books.items()}
    batch = blind_batch(np.array([5]), np.ones((1, 5), dtype=bool))
    session = World(backend="numpy").parties[0]
    plan, other = (PartyModel(p, session).plan(batch) for p in (public, replace(public, books=moved)))
    assert plan.kinds == other.kinds and plan.digest != other.digest


@pytest.mark.parametrize("recipe", ["faithful", "secformer", "puma", "crypten", "mpcformer", "mpcformer_2relu"])
def test_the_books_hold_every_length(tmp_path: Path, recipe: str) -> None:
    public = write_shares(demo_model(), tmp_path / "out", recipe=recipe, untrained_recipe=True)
    party = PartyModel(public, World(backend="numpy").parties[0])
    for longest in (1, 2, 3, 4, 5, 8, 9, 31, 33, public.inputs.longest):
        lengths = np.array([longest, 1])
        party.plan(blind_batch(lengths, np.arange(longest) < lengths[:, None]))


def test_sessions_of_one_party_share_what_was_opened(provisioned: Path) -> None:
    """Each session has tensors of its own name and the very same words, so that memory is spent once."""
    files = [ShareFile(provisioned / share_file(rank)) for rank in (0, 1)]
    world = World(backend="numpy", fixed=files[0].public.fixed)
    kernels = world.kernels
    more = [SecureSession(Party(rank, world.fixed, kernels)) for rank in (0, 1)]
    models = {s: PartyModel(files[rank].public, s, more[rank]) for rank, s in enumerate(world.parties)}

    def program(s: Any, shares: Any) -> None:
        models[s].load_weights(shares)

    world.run(program, files[0].shares, files[1].shares, plan=models[world.parties[0]].provisioning)
    for s, other in zip(world.parties, more, strict=True):
        mine, lent = models[s]._parameters[s], models[s]._parameters[other]
        assert list(mine.matrices) == list(lent.matrices) and list(mine.vectors) == list(lent.vectors)
        assert all(lent.matrix(name).data is w.data and lent.matrix(name).session is other
                   and lent.matrix(name).index == w.index for name, w in mine.matrices.items())
        assert all(lent.vector(name).data is v.data and lent.vector(name).session is other
                   for name, v in mine.vectors.items())


def test_other_functions_than_the_written_ones_are_a_desync(provisioned: Path) -> None:
    public = PublicModel.load(provisioned / CLIENT_FOLDER)
    batch = blind_batch(np.array([5]), np.ones((1, 5), dtype=bool))
    session = World(backend="numpy").parties[0]
    book = public.series(5)
    for altered in (book[:-1], book[1:], tuple(replace(f, magnitude=3) for f in book)):
        with pytest.raises(Desync, match="provision it again"):
            PartyModel(replace(public, books=dict.fromkeys(public.books, altered)), session).plan(batch)
