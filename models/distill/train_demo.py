"""Train the demonstration model: a small BERT that labels English film-review sentences (SST-2).

The script learns a lower-case WordPiece vocabulary from the training text, builds a small
``BertForSequenceClassification`` and trains it. With ``--backbone`` (a folder with a pretrained BERT) the
word embeddings start from what the backbone makes of each token; everything else starts at random.

Example::

    python -m secformer.models.distill.train_demo --data SST-2 --backbone all-MiniLM-L6-v2 --out models/demo
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerBase,
)

LABELS = {0: "negative", 1: "positive"}
MAX_TOKENS = 128
EMBEDDING_SCALE = 0.3  # root mean square of the entries of a transferred word embedding
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# How the treebank splits words that BERT's own tokenizer would not split in the same place.
TREEBANK_REPAIRS = (
    (re.compile(r"\b(\w+) n't\b"), r"\1n't"),
    (re.compile(r"\b(can|gon|got|wan) (not|na|ta)\b"), r"\1\2"),
    (re.compile(r"-lrb-"), "("),
    (re.compile(r"-rrb-"), ")"),
    (re.compile(r"``|''"), '"'),
    (re.compile(r"`"), "'"),
)


@dataclass(frozen=True)
class Corpus:
    """Labelled sentences."""

    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class Encoded:
    """Token ids of the sentences of a corpus, each in one or more spellings, and their targets.

    ``spellings[i]`` holds alternative encodings of sentence ``i``; ``targets`` holds one probability
    per sentence and class.
    """

    spellings: list[list[list[int]]]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.spellings)


@dataclass(frozen=True)
class Plan:
    """How the model is optimised."""

    epochs: int
    learning_rate: float
    weight_decay: float
    word_dropout: float
    seed: int
    batch_size: int = 64
    warmup: float = 0.1
    average_decay: float = 0.999
    checks_per_epoch: int = 2


@dataclass(frozen=True)
class Batch:
    """Padded token ids of the sentences ``rows`` of a corpus, with their attention mask and targets."""

    rows: list[int]
    ids: Tensor
    mask: Tensor
    targets: Tensor


# ---------------------------------------------------------------------------------------------- data


def read_corpus(path: Path) -> Corpus:
    """Read a GLUE file: a header line, then ``sentence<TAB>label`` lines without quoting."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
    return Corpus([row[0].strip() for row in rows], [int(row[1]) for row in rows])


def natural_spelling(text: str) -> str:
    """Undo the treebank's tokenisation where BERT's tokenizer would see it (``does n't`` -> ``doesn't``)."""
    for pattern, replacement in TREEBANK_REPAIRS:
        text = pattern.sub(replacement, text)
    return text


def learn_tokenizer(texts: Sequence[str], vocab_size: int) -> BertTokenizer:
    """Learn a lower-case WordPiece vocabulary from ``texts`` and wrap it as a BERT tokenizer.

    The learner numbers equally frequent tokens differently from run to run; sorting makes ids repeatable.
    """
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        texts, vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    learned = sorted(set(learner.get_vocab()) - set(SPECIAL_TOKENS))
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *learned])}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=MAX_TOKENS)


def token_list(tokenizer: BertTokenizer) -> list[str]:
    """Return all tokens in the order of their ids."""
    return list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))


def one_hot(labels: Sequence[int], smoothing: float = 0.0) -> Tensor:
    """Turn labels into class probabilities, giving ``smoothing`` to the uniform distribution."""
    hard = functional.one_hot(torch.tensor(labels), len(LABELS)).float()
    return (1 - smoothing) * hard + smoothing / len(LABELS)


def encode(texts: Sequence[str], targets: Tensor, tokenizer: PreTrainedTokenizerBase, both: bool) -> Encoded:
    """Tokenise ``texts`` as they are and, if ``both``, in their natural spelling too."""
    columns = [list(texts), [natural_spelling(text) for text in texts]][: 2 if both else 1]
    encoded = [tokenizer(column, truncation=True, max_length=MAX_TOKENS)["input_ids"] for column in columns]
    return Encoded([list(spellings) for spellings in zip(*encoded, strict=True)], targets)


def pad(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Pad sentences to the longest one with [PAD], which has id 0 in every BERT vocabulary."""
    longest = max(map(len, sentences))
    return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in sentences])


def batches(data: Encoded, size: int, rng: random.Random | None = None) -> Iterator[Batch]:
    """Yield batches of similar length; with ``rng``, in random order and random spellings."""
    if rng:
        sentences = [rng.choice(spellings) for spellings in data.spellings]
        lengths = [len(ids) + rng.random() for ids in sentences]
    else:
        sentences = [spellings[0] for spellings in data.spellings]
        lengths = [len(ids) for ids in sentences]
    order = sorted(range(len(data)), key=lengths.__getitem__)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    if rng:
        rng.shuffle(groups)
    for rows in groups:
        ids = pad([sentences[row] for row in rows])
        yield Batch(rows, ids, (ids != 0).long(), data.targets[rows])


# --------------------------------------------------------------------------------------------- model


def build_model(args: argparse.Namespace, vocab_size: int) -> BertForSequenceClassification:
    """Create the small model with random weights."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        intermediate_size=4 * args.hidden,
        hidden_act="gelu",
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=2,
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=0.1,
        id2label=LABELS,
        label2id={name: label for label, name in LABELS.items()},
    )
    return BertForSequenceClassification(config)


@torch.no_grad()
def embed_tokens(folder: Path, tokens: Sequence[str]) -> Tensor:
    """Return what a pretrained BERT makes of each token: its mean output over ``[CLS] token [SEP]``."""
    backbone = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = tokenizer.get_vocab()
    pieces = [[t] if t in known else tokenizer.tokenize(t.removeprefix("##")) for t in tokens]
    ids = [tokenizer.convert_tokens_to_ids(["[CLS]", *row, "[SEP]"]) for row in pieces]
    data = Encoded([[row] for row in ids], torch.zeros(len(tokens)))
    means = torch.empty(len(tokens), backbone.config.hidden_size)
    for batch in batches(data, 64):
        output = backbone(batch.ids, batch.mask).last_hidden_state
        weights = batch.mask.unsqueeze(-1)
        means[batch.rows] = (output * weights).sum(1) / weights.sum(1)
    return means


@torch.no_grad()
def start_embeddings(model: BertForSequenceClassification, source: Tensor) -> None:
    """Start the word embeddings from the principal components of ``source``.

    All rows are scaled to the same length: this keeps the variances that the first LayerNorm meets
    within a narrow range.
    """
    embeddings = model.get_input_embeddings()
    width = embeddings.embedding_dim
    centred = source - source.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:width]
    embeddings.weight.copy_(EMBEDDING_SCALE * width**0.5 * functional.normalize(centred @ axes.T))
    embeddings.weight[embeddings.padding_idx].zero_()


# ------------------------------------------------------------------------------------------ training


def drop_words(ids: Tensor, rate: float) -> Tensor:
    """Replace a random share of the ordinary tokens by [MASK]."""
    ordinary = ids >= len(SPECIAL_TOKENS)
    return ids.masked_fill(ordinary & (torch.rand(ids.shape) < rate), SPECIAL_TOKENS.index("[MASK]"))


@torch.no_grad()
def accuracy(model: nn.Module, data: Encoded, batch_size: int = 64) -> float:
    """Share of sentences whose class is predicted correctly."""
    model.eval()
    hits = 0
    for batch in batches(data, batch_size):
        predicted = model(batch.ids, batch.mask).logits.argmax(1)
        hits += int((predicted == batch.targets.argmax(1)).sum())
    return hits / len(data)


def make_optimiser(model: nn.Module, plan: Plan, steps: int) -> tuple[AdamW, OneCycleLR]:
    """Create AdamW, which spares biases and LayerNorm parameters from decay, and its learning rates."""
    parameters = list(model.parameters())
    optimiser = AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
    )
    schedule = OneCycleLR(
        optimiser,
        plan.learning_rate,
        total_steps=steps,
        pct_start=plan.warmup,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    return optimiser, schedule


def fit(
    model: BertForSequenceClassification, train: Encoded, dev: Encoded, plan: Plan
) -> BertForSequenceClassification:
    """Train ``model``; return the averaged weights with the best dev accuracy."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    steps_per_epoch = math.ceil(len(train) / plan.batch_size)
    total = plan.epochs * steps_per_epoch
    check_every = max(1, steps_per_epoch // plan.checks_per_epoch)
    optimiser, schedule = make_optimiser(model, plan, total)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.average_decay))
    best, best_accuracy = copy.deepcopy(model), 0.0
    stream = (batch for _ in range(plan.epochs) for batch in batches(train, plan.batch_size, rng))
    for step, batch in enumerate(stream, start=1):
        model.train()
        logits = model(drop_words(batch.ids, plan.word_dropout), batch.mask).logits
        loss = functional.cross_entropy(logits, batch.targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(model)
        if step % check_every == 0 or step == total:
            score = accuracy(averaged.module, dev)
            print(f"step {step}/{total}: loss {loss.item():.3f}, dev accuracy {score:.4f}", flush=True)
            if score > best_accuracy:
                best, best_accuracy = copy.deepcopy(averaged.module), score
    return best


# ------------------------------------------------------------------------------------ measure, export


class RangeRecorder:
    """Record the extreme values that matter when the model runs in fixed point."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}
        for name, module in model.named_modules():
            short = name.removeprefix("bert.").removeprefix("encoder.")
            if name.endswith("LayerNorm"):
                module.register_forward_pre_hook(self._variance(f"{short} variance"))
            elif name.endswith("intermediate.dense"):
                module.register_forward_hook(self._output(f"{short} GeLU input"))
            elif name.endswith("attention.self"):
                module.register_forward_hook(self._scores(short), with_kwargs=True)

    def _note(self, name: str, values: Tensor) -> None:
        low, high = self.ranges.get(name, (float("inf"), -float("inf")))
        self.ranges[name] = (min(low, values.min().item()), max(high, values.max().item()))

    def _variance(self, name: str) -> Callable[..., None]:
        return lambda _module, inputs: self._note(name, inputs[0].var(-1, unbiased=False))

    def _output(self, name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: self._note(name, output)

    def _scores(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any], _output: object) -> None:
            hidden = inputs[0] if inputs else kwargs["hidden_states"]
            size = module.attention_head_size
            query, key = (
                layer(hidden).unflatten(-1, (-1, size)).transpose(1, 2)
                for layer in (module.query, module.key)
            )
            scores = query @ key.transpose(-1, -2) / size**0.5
            self._note(f"{name} score", scores)
            self._note(f"{name} score - row maximum", scores - scores.amax(-1, keepdim=True))

        return hook


def export(model: BertForSequenceClassification, tokenizer: BertTokenizer, folder: Path) -> None:
    """Write float16 weights, configuration and tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    tokens = token_list(tokenizer)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)  # as readable as the other files


def report(folder: Path, dev: Corpus) -> None:
    """Load the exported files again; print their dev accuracy and activation ranges."""
    model = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    natural = [natural_spelling(text) for text in dev.texts]
    recorder = RangeRecorder(model)
    for name, texts in (("as given", dev.texts), ("natural spelling", natural)):
        data = encode(texts, one_hot(dev.labels), tokenizer, both=False)
        print(f"dev accuracy, {name}: {accuracy(model, data, batch_size=1):.4f}")
    for name, (low, high) in recorder.ranges.items():
        print(f"{name}: {low:.4g} .. {high:.4g}")


# ---------------------------------------------------------------------------------------------- main


def parse_arguments() -> argparse.Namespace:
    """Read the command line; the defaults reproduce the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported model")
    parser.add_argument(
        "--backbone", type=Path, help="folder with a pretrained BERT to start the embeddings from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--word-dropout", type=float, default=0.1)
    parser.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    return parser.parse_args()


def train_model(
    args: argparse.Namespace, train: Corpus, dev: Corpus
) -> tuple[BertForSequenceClassification, BertTokenizer]:
    """Learn the tokenizer, then train the model."""
    natural = [natural_spelling(text) for text in train.texts]
    tokenizer = learn_tokenizer([*train.texts, *natural], args.vocab_size)
    model = build_model(args, len(tokenizer))
    if args.backbone:
        start_embeddings(model, embed_tokens(args.backbone, token_list(tokenizer)))
    data = encode(train.texts, one_hot(train.labels, args.smoothing), tokenizer, both=True)
    dev_data = encode(dev.texts, one_hot(dev.labels), tokenizer, both=False)
    plan = Plan(args.epochs, args.learning_rate, args.weight_decay, args.word_dropout, args.seed)
    return fit(model, data, dev_data, plan), tokenizer


def main() -> None:
    """Train, export and measure."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # vanishing gradients must not slow the processor down
    train, dev = (read_corpus(args.data / name) for name in ("train.tsv", "dev.tsv"))
    model, tokenizer = train_model(args, train, dev)
    export(model, tokenizer, args.out)
    report(args.out, dev)


if __name__ == "__main__":
    main()
