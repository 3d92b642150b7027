"""Share files: what each holds, what it says about the weights, and that two of them answer as the model does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bytes_lab import PAD, WORDS, write_bytes
from families_lab import save, tokens
from safetensors.numpy import load_file

from secformer import demo_model, plain_bert
from secformer.models.data.batch import Batch, blind_batch
from secformer.models.data.saved_tokenizer import load
from secformer.models.data.tokenizer import Texts, Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import CHECK
from secformer.models.ranges.profile import measure
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PUBLIC, PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.share_file import ShareFile, share_file
from secformer.mpc.errors import InputError, ModelError, SettingsError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.prg import fresh_seed
from secformer.mpc.simulate import World

TEXTS = ["A wonderful film.", "Dull, lifeless and far too long for its own good."]


def answers(out: Path, texts: Texts, world: World | None = None) -> np.ndarray:
    """Logits of texts from both share files, through PartyModel in a world."""
    world = world or World(backend="numpy")
    shares = [ShareFile(out / share_file(rank)) for rank in (0, 1)]
    public = PublicModel.load(out / CLIENT_FOLDER)
    parties = {s: PartyModel(f.public, s) for s, f in zip(world.parties, shares, strict=True)}
    plan = parties[world.parties[0]].provisioning
    world.run(lambda s, inputs: parties[s].load_weights(inputs), shares[0].shares, shares[1].shares, plan=plan)
    batch = Batch(tuple(Tokenizer(out / CLIENT_FOLDER, public.inputs).rows(texts)))
    halves = [public.inputs.rows(keys, world.kernels) for keys in public.inputs.keys(batch, fresh_seed())]
    blind = blind_batch(batch.lengths, batch.mask)
    plan = parties[world.parties[0]].plan(blind)
    assert plan == parties[world.parties[1]].plan(blind)
    outcome = world.run(lambda s, words: parties[s].answer(blind, words), *halves, plan=plan)
    a, b = outcome.results
    assert set(a) == {*public.names, CHECK} and not a[CHECK].any() and not b[CHECK].any()
    return decode(a["logits"] + b["logits"], public.fixed.frac)


def test_two_share_files_answer_as_the_model(provisioned: Path) -> None:
    assert load(provisioned / CLIENT_FOLDER) is not None, "clients need no transformers to read texts"
    wanted = plain_bert(demo_model(), TEXTS).logits
    assert np.abs(answers(provisioned, TEXTS) - wanted).max() < 0.01


@pytest.mark.filterwarnings("ignore")
def test_parties_find_robertas_positions_in_the_mask(tmp_path: Path) -> None:
    """Padding on the left and in the middle, which moves the positions of what is behind it."""
    folder = save(tmp_path / "model", "RobertaForSequenceClassification", vocab_size=WORDS, hidden_size=12,
                  num_hidden_layers=1, num_attention_heads=2, intermediate_size=7, type_vocab_size=1,
                  max_position_embeddings=20, tokenizer=write_bytes)
    public = write_shares(folder, tmp_path / "out", recipe="auto")
    assert (public.inputs.longest, public.inputs.pad) == (18, PAD)
    given = tokens(WORDS, pad=PAD)
    wanted = plain_bert(folder, given).logits
    found = answers(tmp_path / "out", given)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=2e-3 * np.abs(wanted).max())
    with pytest.raises(InputError, match="token 0 is the padding token"):
        answers(tmp_path / "out", {"input_ids": [[PAD, 7, 2]]})


@pytest.mark.parametrize("seed_rank", [0, 1])
def test_either_file_may_be_the_seed_and_they_add_up_to_the_weights(tmp_path: Path, seed_rank: int) -> None:
    from secformer.models.families.folder import ModelFolder

    public = write_shares(demo_model(), tmp_path / "out", seed_rank=seed_rank, recipe="auto")
    small, large = (tmp_path / "out" / share_file(r) for r in (seed_rank, 1 - seed_rank))
    assert list(load_file(small)) == ["seed"] and len(load_file(large)) > 20
    a, b = ShareFile(small), ShareFile(large)
    checkpoint = ModelFolder(demo_model()).checkpoint
    for name, tensor in public.layout.items():
        x, y = a.shares.get(name), b.shares.get(name)
        assert np.array_equal(x + y, encode(tensor.build(checkpoint), 16).astype(x.dtype)), name


def test_a_share_is_noise(provisioned: Path) -> None:
    """Bits of either file's words are balanced, also where the weights' words have long runs of equal bits."""
    for rank in (0, 1):
        words = ShareFile(provisioned / share_file(rank)).shares.get("layer.0.qkv.weight")
        ones = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(words.size)


def test_the_description_says_nothing_about_the_weights(tmp_path: Path, provisioned: Path) -> None:
    """Two provisionings of one model have different digests, and the weights' own digest is in neither file."""
    from secformer.models.families.folder import ModelFolder

    again = write_shares(demo_model(), tmp_path / "again", recipe="auto")
    first = PublicModel.load(provisioned / CLIENT_FOLDER)
    assert again.digest != first.digest and again.books == first.books
    own = ModelFolder(demo_model()).digest.encode()
    for path in [*provisioned.rglob("*"), *(tmp_path / "again").rglob("*")]:
        assert path.is_dir() or own not in path.read_bytes(), path


def test_files_are_for_their_owner_only(provisioned: Path) -> None:
    assert {p.stat().st_mode & 0o077 for p in provisioned.glob("*.safetensors")} == {0}


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        PublicModel.load(tmp_path)
    with pytest.raises(ModelError, match="readable share file"):
        ShareFile(tmp_path / "nothing.safetensors")


def test_bad_provisioning_writes_nothing(tmp_path: Path, provisioned: Path) -> None:
    from secformer import SECFORMER

    for problem, settings in [("seed, must be 0 or 1, got 2", {"seed_rank": 2}), ("distilled for", {"recipe": "exact"}),
                              ("cannot be provisioned", {"recipe": "exact", "untrained_recipe": True}),
                              ("cannot be provisioned", {"recipe": replace(SECFORMER, name="mine")}),
                              ("'auto' or 'head'", {"output": "all"})]:
        with pytest.raises(SettingsError, match=problem):
            write_shares(demo_model(), tmp_path / "new", **settings)  # type: ignore[arg-type]
        assert not (tmp_path / "new").exists()
    with pytest.raises(SettingsError, match="not empty"):
        write_shares(demo_model(), provisioned)


def test_clients_get_the_models_config(provisioned: Path) -> None:
    """A tokenizer may need it, and `classify` reads there whether a single output is a regression."""
    assert (provisioned / CLIENT_FOLDER / "config.json").read_bytes() == (demo_model() / "config.json").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_the_owners_folder_is_not_named_to_others(tmp_path: Path) -> None:
    """Also where a note tells the owner about a file in it."""
    folder = save(tmp_path / "mine", "BertModel", hidden_size=6, num_hidden_layers=1, num_attention_heads=2,
                  intermediate_size=7, max_position_embeddings=20)
    profile = measure(ModelFolder(folder), ["the cat"])
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "tokenizer.json").write_text("{", "utf-8")
    public = write_shares(folder, tmp_path / "out", profile=profile)
    assert any("cannot read the tokenizer in the model's folder" in note for note in public.notes)
    assert str(tmp_path) not in (tmp_path / "out" / CLIENT_FOLDER / PUBLIC).read_text("utf-8")
