"""Clients that hold the embedding tables: which tables, what is in the files of each role, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, safe_open, save_file
from sentence_lab import write_sentence
from toy_family import write_toy

from secformer import demo_model
from secformer.models.data.batch import Batch
from secformer.models.data.tensors import TABLE
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PUBLIC, PublicModel
from secformer.models.run.share_file import ShareFile, share_file
from secformer.models.run.tables import FILE, Tables, needed
from secformer.mpc.errors import ModelError, SettingsError

TEXTS = ["A wonderful film.", "Dull, lifeless and far too long for its own good."]


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("client-tables") / "shares"
    write_shares(demo_model(), out, embedding="client")
    return out


def copied(shares: Path, to: Path, tables: dict[str, Any], **metadata: str) -> Path:
    """A client's folder with other tables, or with other facts about them."""
    to.mkdir()
    (to / PUBLIC).write_bytes((shares / CLIENT_FOLDER / PUBLIC).read_bytes())
    with safe_open(shares / CLIENT_FOLDER / FILE, framework="np") as file:
        facts = dict(file.metadata())
    save_file(tables, to / FILE, metadata=facts | metadata)
    return to


def test_the_sums_are_the_models_own(shares: Path) -> None:
    public, folder = PublicModel.load(shares / CLIENT_FOLDER), ModelFolder(demo_model())
    batch = Batch(tuple(Tokenizer(shares / CLIENT_FOLDER, public.inputs).rows(TEXTS)))
    mine = Tables(shares / CLIENT_FOLDER, public).sums(batch)
    np.testing.assert_array_equal(mine, folder.embeddings(batch))
    assert mine.shape == (batch.tokens, public.inputs.hidden) and np.abs(mine).max() > 0


def test_a_sentence_folders_encoder_says_which_tables(tmp_path: Path) -> None:
    folder = ModelFolder(write_sentence(tmp_path / "sentence", dense=[(4, "activation.Tanh", True)]))
    found = needed(folder.architecture)
    assert set(found) == {f"embeddings.{kind}_embeddings.weight" for kind in ("word", "token_type", "position")}
    public = write_shares(folder.path, tmp_path / "shares", embedding="client")
    batch = Batch(tuple(folder.tokenizer.rows(["the cat", "dog"])))
    np.testing.assert_array_equal(Tables(tmp_path / "shares" / CLIENT_FOLDER, public).sums(batch),
                                  folder.embeddings(batch))


def test_a_family_without_segments_and_positions(path: Path, tmp_path: Path) -> None:
    folder = ModelFolder(write_toy(tmp_path / "toy"))
    assert list(needed(folder.architecture)) == ["words.weight"]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_every_dtype_keeps_its_values(tmp_path: Path, dtype: str) -> None:
    """bfloat16 has no NumPy type and becomes float32; no value changes."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as torch_load
    from safetensors.torch import save_file as torch_save

    kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
    path = write_sentence(tmp_path / "model") / "model.safetensors"
    torch_save({name: t.to(kinds[dtype]) for name, t in torch_load(path).items()}, path)
    folder = ModelFolder(path.parent)
    public = write_shares(folder.path, tmp_path / "shares", embedding="client")
    client = tmp_path / "shares" / CLIENT_FOLDER
    for name, table in load_file(client / FILE).items():
        np.testing.assert_array_equal(table.astype(np.float64), folder.checkpoint.read(name, table.shape))
    Tables(client, public)


def test_the_parties_files_have_no_tables(shares: Path) -> None:
    public = PublicModel.load(shares / CLIENT_FOLDER)
    assert not public.private and TABLE not in public.layout and (public.columns, public.width) == (
        public.inputs.hidden, 64)
    names = set(load_file(shares / share_file(0)))
    assert names == set(public.layout) and not any(name.startswith("embedding.") and "layernorm" not in name
                                                   for name in names)
    assert all(ShareFile(shares / share_file(rank)).public == public for rank in (0, 1))


def test_nothing_about_the_tables_is_in_what_a_party_gets(shares: Path) -> None:
    """Their digest would let a party test a guess; it stands in the clients' folder alone, in the tables' own file."""
    with safe_open(shares / CLIENT_FOLDER / FILE, framework="np") as file:
        digest = file.metadata()["sha256"]
    own = ModelFolder(demo_model()).digest
    for path in (shares / share_file(0), shares / share_file(1), shares / CLIENT_FOLDER / PUBLIC):
        content = path.read_bytes()
        assert digest.encode() not in content and own.encode() not in content
    assert (shares / CLIENT_FOLDER / FILE).stat().st_mode & 0o077 == 0


def test_a_private_model_gives_clients_no_tables(provisioned: Path) -> None:
    assert not (provisioned / CLIENT_FOLDER / FILE).exists()
    assert "embedding" not in json.loads((provisioned / CLIENT_FOLDER / PUBLIC).read_text())


def test_tables_that_are_missing_or_others_are_refused(shares: Path, tmp_path: Path) -> None:
    public = PublicModel.load(shares / CLIENT_FOLDER)
    good = load_file(shares / CLIENT_FOLDER / FILE)
    word = "embeddings.word_embeddings.weight"

    def refused(folder: Path, said: str) -> None:
        with pytest.raises(ModelError, match=said):
            Tables(folder, public)

    Tables(copied(shares, tmp_path / "same", good), public)
    refused(tmp_path, r"tables.safetensors is missing: .* clients hold the embedding tables; use the clients' folder")
    altered = good[word].copy()
    altered[3, 0] += 1
    refused(copied(shares, tmp_path / "a", good | {word: altered}), "was altered after it was written")
    refused(copied(shares, tmp_path / "b", good | {word: good[word][:-1].copy()}), "holds the tables .* but the model")
    refused(copied(shares, tmp_path / "c", {n: t for n, t in good.items() if n != word}), "but the model needs .*word_")
    refused(copied(shares, tmp_path / "d", good, model="0" * 64), "model 0000.* mix no files of two provisionings")
    refused(copied(shares, tmp_path / "e", good, format="another"), "has the format 'another'")
    (tmp_path / "e" / FILE).write_bytes((shares / CLIENT_FOLDER / FILE).read_bytes()[:-9])
    refused(tmp_path / "e", "not a readable safetensors file")


def test_another_way_to_embed_is_refused(tmp_path: Path, shares: Path) -> None:
    with pytest.raises(SettingsError, match="embedding must be 'private' or 'client', got 'public'"):
        write_shares(demo_model(), tmp_path / "new", embedding="public")
    assert not (tmp_path / "new").exists()
    facts = json.loads((shares / CLIENT_FOLDER / PUBLIC).read_text()) | {"embedding": "other"}
    with pytest.raises(ModelError, match="its embedding is 'other', but this version reads 'client' or none"):
        PublicModel.from_json(json.dumps(facts), "here")
    del facts["embedding"]  # no party and no client can be talked into the other way: the digest says which it is
    with pytest.raises(ModelError, match="its digest does not match"):
        PublicModel.from_json(json.dumps(facts), "here")
