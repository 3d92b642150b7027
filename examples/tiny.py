"""Small models for the notebooks, made in a folder of their own in a second, without a download.

The encoders are the shipped model's: trained weights below, and a head of the wanted kind on top. Only the classifier
was trained. The other heads are random, and so is the model that generates text: their answers mean nothing, and show
that the secure answer is the plaintext one. Each notebook takes a model of yours from an environment variable.

Ranges are measured on a few sentences, which is quick. A model of yours needs more: `secformer profile`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from secformer import demo_model
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.prefix import AUTO, begin

WEIGHTS, CONFIG = "model.safetensors", "config.json"
COPIED = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
SENTENCES = ("The cat sat on the mat, and it was good.", "A dull, lifeless mess of a film!", "Who wrote this book?",
             "Sarah lives in London, and her brother runs a bank in Paris.", "The dog ran to the old house at noon.",
             "It rained all day, so we stayed at home and watched a warm and funny film.", "Great.", "Where is it?")
LETTERS = "abcdefghijklmnopqrstuvwxyz .,!?'"


def own(variable: str) -> Path | None:
    """The model folder that an environment variable names."""
    named = os.environ.get(variable)
    return Path(named) if named else None


def encoder(architecture: str, labels: tuple[str, ...] = ()) -> Path:
    """The shipped model's encoder as a model of another class, such as "BertForTokenClassification"."""
    source, folder = demo_model(), Path(tempfile.mkdtemp(prefix="secformer-"))
    tensors = {name: value.astype(np.float32) for name, value in load_file(source / WEIGHTS).items()}
    trained = {name: tensors.pop(name) for name in ("classifier.weight", "classifier.bias")}
    config = json.loads((source / CONFIG).read_text("utf-8")) | {"architectures": [architecture], "dtype": "float32"}
    del config["problem_type"]
    if labels:
        config["id2label"] = {str(i): name for i, name in enumerate(labels)}
        config["label2id"] = {name: i for i, name in enumerate(labels)}
    tensors |= _head(architecture, config, trained)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    for name in COPIED:
        shutil.copyfile(source / name, folder / name)
    measure(ModelFolder(folder), _sentences(architecture, labels)).save(folder / FILE)
    return folder


def _sentences(architecture: str, labels: tuple[str, ...]) -> list[Any]:
    """Texts as a model of that class takes them."""
    if architecture == "BertForQuestionAnswering" or len(labels) == 1:
        return list(zip(SENTENCES, reversed(SENTENCES), strict=True))
    if architecture == "BertForMaskedLM":
        return [" ".join([*sentence.split(" ")[:-1], "[MASK]."]) for sentence in SENTENCES]
    return list(SENTENCES)


def _head(architecture: str, config: dict[str, Any], trained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng, hidden = np.random.default_rng(0), config["hidden_size"]

    def linear(name: str, outputs: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": rng.normal(0.0, hidden**-0.5, (outputs, hidden)).astype(np.float32),
                f"{name}.bias": np.zeros(outputs, np.float32)}

    match architecture:
        case "BertModel":
            return {}
        case "BertForSequenceClassification" if len(config["id2label"]) == 1:  # how positive a text is
            return {name: np.ascontiguousarray((value[1:] - value[:1]) / 4) for name, value in trained.items()}
        case "BertForTokenClassification":
            return linear("classifier", len(config["id2label"]))
        case "BertForQuestionAnswering":
            return linear("qa_outputs", 2)
        case "BertForMaskedLM":  # the decoder is the word table
            norm = {"weight": np.ones(hidden, np.float32), "bias": np.zeros(hidden, np.float32)}
            return linear("cls.predictions.transform.dense", hidden) | {
                "cls.predictions.bias": np.zeros(config["vocab_size"], np.float32)} | {
                f"cls.predictions.transform.LayerNorm.{name}": value for name, value in norm.items()}
    raise ValueError(f"there is no head here for {architecture} with {len(config['id2label'])} labels")


def decoder() -> Path:
    """A GPT-2 with one layer and random weights, whose tokens are letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder, rng = Path(tempfile.mkdtemp(prefix="secformer-")), np.random.default_rng(0)
    words = ["<|endoftext|>", *LETTERS]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(words[:1])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": words[0], "eos_token": words[0]}), "utf-8")
    hidden, positions = 32, 64
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": len(words), "n_embd": hidden,
              "n_head": 4, "n_layer": 1, "n_positions": positions, "eos_token_id": 0, "bos_token_id": 0}
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    tensors = {"wte.weight": rng.normal(0.0, 0.5, (len(words), hidden)),
               "wpe.weight": rng.normal(0.0, 0.5, (positions, hidden))}
    for name, inner, outer in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden),
                               ("mlp.c_fc", hidden, 4 * hidden), ("mlp.c_proj", 4 * hidden, hidden)):
        tensors |= {f"h.0.{name}.weight": rng.normal(0.0, inner**-0.5, (inner, outer)),
                    f"h.0.{name}.bias": np.zeros(outer)}
    for name in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
        tensors |= {f"{name}.weight": np.ones(hidden), f"{name}.bias": np.zeros(hidden)}
    save_file({f"transformer.{name}": value.astype(np.float32) for name, value in tensors.items()}, folder / WEIGHTS)
    model = ModelFolder(folder)
    begin(model, AUTO)
    measure(model, [sentence.lower() for sentence in SENTENCES], truncation=True).save(folder / FILE)
    return folder
