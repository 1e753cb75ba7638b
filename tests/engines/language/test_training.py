"""From sentences of our own to a reader that the plugin serves: every stage of engines/language."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from sage_edge import native

torch = pytest.importorskip("torch", reason="needs torch (make test-training)")

from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402

from engines.language import calibrate, export, report, train  # noqa: E402
from engines.language.config import NetConfig, load_recipe  # noqa: E402
from engines.language.data import load_library  # noqa: E402
from engines.language.examples import CLS, SEP, draw, make_examples  # noqa: E402
from engines.language.graphs import StepGraph  # noqa: E402
from engines.language.nets import LAYER_NAMES, Reader, base_folder  # noqa: E402
from engines.language.reads import open_plugin  # noqa: E402
from engines.language.vocabulary import pruned  # noqa: E402
from sage_edge.plugins.language.state import EVIDENCE, FIRST, LAST, MARK, MEANING, SCORE  # noqa: E402

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]

NAMES = ("red", "green", "blue", "grey", "black", "white", "pink", "brown")
THINGS = ("door", "lamp", "table", "chair", "window", "wall", "roof", "floor")
NET = NetConfig("tiny_base", 120, 1, 16, 2, 32, 8, 12, 8, 6, 0.0)
RECIPE = """
name = "tiny"
version = "1"
licence = "none"
note = "made for a test"
[data]
train = "train.json.gz"
dev = "dev.json.gz"
sentences = "sentences.jsonl.gz"
mixed = ""
calibration_share = 0.4
[net]
base = "tiny_base"
vocabulary = 120
layers = 1
width = 16
heads = 2
feed_forward = 32
question_pieces = 8
window_pieces = 12
stride = 8
span_pieces = 6
dropout = 0.0
[train]
seed = 0
batch = 4
iterations = 6
learning_rate = 1e-3
weight_decay = 1e-2
warm_up = 0.5
null_share = 0.3
sentence_share = 0.2
shortest_window = 6
bucket = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recipe, its data, and a package of base weights with a vocabulary of 160 pieces."""
    root = tmp_path_factory.mktemp("language")
    base = root / "packages" / "tiny_base" / "model"
    base.mkdir(parents=True)
    (base.parent / "__init__.py").write_text("")
    letters = [chr(ord("a") + n) for n in range(26)]
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*marks, *"?.!0123456789", "漢", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary += [
        "the",
        *NAMES,
        *THINGS,
        "is",
        "what",
        "colour",
        "of",
        "##ed",
        "house",
        "our",
        "in",
        *map(str, range(10, 70)),
    ]
    tokenizer = Tokenizer(
        models.WordPiece({piece: n for n, piece in enumerate(vocabulary)}, unk_token=marks[1])
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(marks)
    tokenizer.save(str(base / "tokenizer.json"))
    save_file(random_bert(len(vocabulary)), base / "model.safetensors")
    for name, articles in (("train", 12), ("dev", 4)):
        with gzip.open(root / f"{name}.json.gz", "wt") as file:
            json.dump({"data": [article_of(f"{name} {n}", n) for n in range(articles)]}, file)
    with gzip.open(root / "sentences.jsonl.gz", "wt") as file:
        for thing in THINGS:
            asked = {"question": f"what is the {thing}?", "answers": ["white"]}
            file.write(json.dumps({"id": thing, "sentence": f"The {thing} is white.", "qas": [asked]}) + "\n")
    (root / "tiny.toml").write_text(RECIPE)
    sys.path.insert(0, str(root / "packages"))
    yield root
    sys.path.remove(str(root / "packages"))


def random_bert(vocabulary):
    """Weights of a BERT of one layer."""
    torch.manual_seed(0)
    width, wide = NET.width, NET.feed_forward
    shapes = {"widen": (wide, width), "narrow": (width, wide)}
    found = {
        "embeddings.word_embeddings.weight": torch.randn(vocabulary, width),
        "embeddings.position_embeddings.weight": torch.randn(64, width),
        "embeddings.token_type_embeddings.weight": torch.randn(2, width),
        "embeddings.LayerNorm.weight": torch.ones(width),
        "embeddings.LayerNorm.bias": torch.zeros(width),
    }
    for ours, theirs in LAYER_NAMES.items():
        shape = (width,) if ours.endswith("norm") else shapes.get(ours, (width, width))
        found[f"encoder.layer.0.{theirs}.weight"] = torch.randn(shape) * 0.2
        found[f"encoder.layer.0.{theirs}.bias"] = torch.zeros(shape[0])
    return found


def article_of(title, seed):
    rng = np.random.default_rng(seed)
    paragraphs = []
    for _ in range(3):
        pairs = list(zip(rng.permutation(THINGS)[:4], rng.permutation(NAMES)[:4], strict=True))
        context = " ".join(f"The {thing} of house {seed} is {name}." for thing, name in pairs)
        asked = [
            {
                "question": f"what colour is the {thing} of house {seed}?",
                "answers": [{"text": name, "answer_start": context.index(f"is {name}") + 3}],
            }
            for thing, name in pairs
        ]
        paragraphs.append({"context": context, "qas": asked})
    return {"title": title, "paragraphs": paragraphs}


def run(module, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["main", "--config", str(folder / "tiny.toml"), *map(str, arguments)])
    module.main()


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(folder, monkeypatch):
    whole, parts = folder / "whole", folder / "parts"
    run(train, folder, monkeypatch, "--data", folder, "--out", whole, "--threads", 1)
    with monkeypatch.context() as patched:
        patched.setattr(train, "SAVE_EVERY_S", -1.0)
        step = train.Trainer.step

        def stopped(self, batch):
            if self.iteration == 3:
                raise KeyboardInterrupt
            return step(self, batch)

        patched.setattr(train.Trainer, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(train, folder, monkeypatch, "--data", folder, "--out", parts, "--threads", 1)
    run(train, folder, monkeypatch, "--data", folder, "--out", parts, "--threads", 1)
    one, other = (torch.load(out / "checkpoint.pt", weights_only=True)["net"] for out in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = [json.loads(line)["iteration"] for line in (parts / "losses.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6]


def test_from_data_to_a_reader_that_is_served_and_its_card(folder, monkeypatch):
    out, models_folder = folder / "whole", folder / "models"
    if not (out / "checkpoint.pt").exists():
        run(train, folder, monkeypatch, "--data", folder, "--out", out, "--threads", 1)
    run(export, folder, monkeypatch, "--checkpoint", out / "checkpoint.pt", "--out", models_folder)
    files = ("--data", folder, "--models", models_folder, "--cache", folder / "reads", "--threads", 1)
    run(calibrate, folder, monkeypatch, *files, "--questions", 12)
    run(report, folder, monkeypatch, *files)
    plugin = open_plugin(models_folder, 1)
    asked = plugin.prepare(
        {"question": "what colour is the door of house 1?", "text": "The door is red. " * 9}
    )
    z, context, _ = plugin.encode([asked])
    delta, terms = plugin.advance(z, context, np.ones(1, np.float32))
    assert terms == pytest.approx(plugin.energies(z + delta, context), abs=1e-5)
    metrics = json.loads((models_folder / "metrics.json").read_text())
    assert metrics["questions"] == 48
    assert metrics["fixed"][8]["F1"] == pytest.approx(metrics["all_reads"]["F1"])
    card = (models_folder / "MODEL_CARD.md").read_text()
    assert "CC BY-SA" in card
    manifest = json.loads((models_folder / "manifest.json").read_text())
    native.HaltPolicy(target_E_norm=manifest["halting"]["target_E_norm"])
    assert not set(manifest["calibrated_on"]["articles"]) & {f"dev {n}" for n in range(4)}


def test_weights_in_int8_read_as_those_in_float32(folder):
    torch.manual_seed(1)
    net = Reader(load_recipe(folder / "tiny.toml").net).eval()
    inputs = export.example_inputs(net.config)
    with torch.no_grad():
        exact, energy = StepGraph(net)(*inputs.values())
    small = monkey_quantised(net, folder)
    found, judged = small.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert np.abs(found[:, :, SCORE] - exact[:, :, SCORE].numpy()).max() < 0.1
    assert np.abs(judged - energy.numpy()).max() < 0.02
    row = found[0, 0]
    assert row[MARK] == 1
    assert row[EVIDENCE] == pytest.approx(row[SCORE], abs=1e-4)
    assert net.config.question_pieces + 2 <= row[FIRST] <= row[LAST] < net.config.length
    assert np.linalg.norm(row[MEANING:]) == pytest.approx(1.0, abs=1e-3)


def monkey_quantised(net, folder):
    import onnxruntime

    large, export.LARGE = export.LARGE, 1 << 6
    try:
        export.export_all(net, folder / "quantised")
    finally:
        export.LARGE = large
    return onnxruntime.InferenceSession(str(folder / "quantised" / "step.onnx"))


def test_examples_point_at_their_answers_and_nulls_have_none(folder):
    recipe = load_recipe(folder / "tiny.toml")
    tokenizer, _ = pruned(base_folder("tiny_base") / "tokenizer.json", recipe.net.vocabulary)
    library = load_library(folder / "train.json.gz")
    examples = make_examples(tokenizer, library, None, recipe.net)
    answers = {question.text: question.answers[0] for question in library.questions}
    nulls = rights = 0
    for group in range(20):
        for batch in draw(examples, recipe.net, recipe.train, group):
            for ids, begin, first, last in zip(batch.ids, batch.begin, batch.first, batch.last, strict=True):
                assert ids[0] == CLS
                assert ids[begin - 1] == SEP
                window = tokenizer.decode(ids[begin:].tolist())
                if first == 0:
                    assert last == 0
                    nulls += 1
                else:
                    said = tokenizer.decode(ids[first : last + 1].tolist())
                    assert said in answers.values()
                    assert said in window
                    rights += 1
    assert 0.15 < nulls / (nulls + rights) < 0.45


def test_every_example_comes_once_an_epoch(folder):
    from engines.language.examples import _order

    seen = np.concatenate([_order(start, 6, 10, seed=3) for start in range(0, 30, 6)])
    for epoch in range(3):
        assert sorted(seen[epoch * 10 : epoch * 10 + 10]) == list(range(10))


def test_the_vocabulary_keeps_marks_letters_and_the_most_frequent_words(folder):
    tokenizer, old = pruned(base_folder("tiny_base") / "tokenizer.json", 100)
    assert [tokenizer.id_to_token(n) for n in range(4)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    assert tokenizer.get_vocab_size() == len(old) == 100
    assert tokenizer.encode("the [CLS] red").tokens.count("[CLS]") == 0
    assert tokenizer.token_to_id("漢") is None
    whole = Tokenizer.from_file(str(base_folder("tiny_base") / "tokenizer.json"))
    assert [whole.id_to_token(n) for n in old] == [tokenizer.id_to_token(n) for n in range(100)]


def test_a_package_of_weights_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match="no_such_weights"):
        base_folder("no_such_weights")
