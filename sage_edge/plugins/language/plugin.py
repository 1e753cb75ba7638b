"""The language plugin: answers questions from a text by reading it window by window, until it knows."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sage_edge.errors import ConfigError
from sage_edge.irp import Answer, Encoded, Engine, Invariants, IRPState, LatentPlugin, Recipe
from sage_edge.irp.engine import Float32
from sage_edge.plugins.language.model import FACTS, LanguageModel, find_model, load_model, read_recipes
from sage_edge.plugins.language.questions import MOST_WORDS, QUESTION, Asked, read_problem
from sage_edge.plugins.language.state import MARK, SCORE, Span, meaning_of, posterior_of
from sage_edge.plugins.language.texts import Text, TextStore, read_text

#: The reader that ships.
DEFAULT_MODEL = "minilm"
#: Memory for texts, by default.
TEXT_MIB = 64
#: What an answer says of its span where there is none.
_NOTHING: dict[str, Any] = dict.fromkeys(("text", "start", "end", "source", "share"))
#: Other spans that an answer names.
MOST_RIVALS = 3


class LanguagePlugin(LatentPlugin):
    """Find the span of a text that answers a question, and know when to stop reading.

    State space: a row for each of the 32 windows that a glance by BM25 offers, float32 [32, 392]: whether it
    was read, the best span in it with its score and evidence, and that span's meaning. A step reads the
    likeliest window that was not read. The meaning latent is the mean of the spans' meanings by posterior.
    Noise model: span masks: each row that was read goes back to unread with the chance ``sigma``.
    Energy: one minus the posterior of the likeliest span, over all that was read, was not, or is not there,
        where that is confident; else above that, by how many windows are left, then by that posterior.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    name = "language"
    invariants = Invariants(
        state_space="evidence-by-window",
        noise_model="span-mask",
        energy_fn="posterior-of-the-rest-or-windows-left",
        energy_units="probability that the likeliest span is not the answer",
    )
    takes = QUESTION
    config_keys = ("model", "question", "text_mib")
    noise_sigma = 0.0  # a request begins with nothing read: there is nothing to mask
    can_rewind = False  # more evidence may raise the energy, and is no mistake
    slot_bytes = 128 << 10
    lo, hi = -1024.0, 1024.0
    folder: Path
    model: LanguageModel
    texts: TextStore

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """Take the settings.

        Args:
            config: ``model`` names a reader; ``question`` is asked of a text that comes without one;
                ``text_mib`` is the memory for texts that are kept, in MiB.
        """
        super().__init__(config)
        self.question = self.config.get("question", "")
        if not isinstance(self.question, str) or len(self.question.split()) > MOST_WORDS:
            raise ConfigError(f"question: expected up to {MOST_WORDS} words, got {self.question!r}")
        self.text_mib = self.config.get("text_mib", TEXT_MIB)
        if type(self.text_mib) is not int or self.text_mib < 0:
            raise ConfigError(f"text_mib: expected a whole number of MiB, got {self.text_mib!r}")

    def recipes(self, precision: str) -> Mapping[str, Recipe]:
        """The two graphs of the reader that ``model`` names; ``minilm`` by default."""
        self.folder = find_model(self.config.get("model", DEFAULT_MODEL))
        found = read_recipes(self.folder)
        self.model_sha256 = found["step"].sha256
        return found

    def load(self, engines: Mapping[str, Engine]) -> None:
        """Take the two graphs, and the tokenizer that lies beside them."""
        self.model = model = load_model(self.folder, engines)
        self.version = model.version
        self.halting = self.configured(model.halting)
        self.calibration = model.trust
        self.backend = model.step.backend
        self.step_engine = model.step
        self.state_shape = tuple(int(n) for n in model.step.inputs["z"][1:])
        self.context_shapes = {
            "ids": (model.rows, model.length),
            "prior": (model.rows,),
            "place": (model.rows,),
            "facts": (FACTS,),
        }
        self.texts = TextStore(
            lambda text_id, passages: read_text(
                model.tokenizer, model.window, model.stems, text_id, passages
            ),
            self.text_mib << 20,
        )

    def prepare(self, problem: Mapping[str, Any]) -> Asked:
        """Check a question and its text, cut the text unless it is kept already, and glance at it.

        Raises:
            InputError: A value is missing, unknown or unusable, or the text is too long.
        """
        return read_problem(problem, self.model, self.texts, self.question)

    def input_size(self, x0: Asked) -> float:
        """One: a read takes as long in a long text as in a short one."""
        return 1.0

    def example(self) -> Asked:
        """A question of one sentence."""
        return self.prepare(QUESTION.example)

    def encode(self, inputs: Sequence[Asked]) -> Encoded:
        """Nothing was read yet: states of zeros, with the windows and their priors as context.

        Where nothing is asked, the one window that there seems to be counts as read: the energy is 0.
        """
        z = np.zeros((len(inputs), *self.state_shape), np.float32)
        z[:, 0, MARK] = [not asked.question for asked in inputs]
        context = {name: np.stack([getattr(asked, name) for asked in inputs]) for name in self.context_shapes}
        return Encoded(z, context, self.energies(z, context))

    def advance(
        self, z: Float32, context: Mapping[str, Float32], step_size: Float32
    ) -> tuple[Float32, Float32]:
        """Read one more window of each of n questions."""
        out = self.model.step.run({"z": z, **context, "step_size": step_size})
        return out["delta"], out["energy"]

    def energies(self, z: Float32, context: Mapping[str, Float32]) -> Float32:
        """Energies of n states."""
        judged = {name: context[name] for name in ("prior", "place", "facts")}
        return self.model.energy.run({"z": z, **judged})["energy"]

    def perturb(self, state: IRPState, sigma: float, rng: np.random.Generator) -> IRPState:
        """Mask spans: each row that was read goes back to unread with the chance ``sigma``."""
        masked = rng.random(len(state.x)) < sigma
        return IRPState(np.where(masked[:, None], np.float32(0), state.x), state.step_idx, state.meta)

    def answers(self, z: Float32, inputs: Sequence[Asked]) -> list[Answer]:
        """The likeliest spans of n states; none where it is likelier that the text does not answer."""
        return [_answer(row.astype(np.float32), asked) for row, asked in zip(z, inputs, strict=True)]


def _answer(z: Float32, asked: Asked) -> Answer:
    kept = {"windows": len(asked.text.windows), "text_id": asked.text.text_id}
    if not asked.question:
        return Answer(
            meaning_of(z, asked.prior, asked.sharpness), details=_NOTHING | {"read": [], "rivals": []} | kept
        )
    posterior = posterior_of(z, asked.prior, asked.place, asked.nowhere, asked.sharpness)
    spans = posterior.spans
    is_told = bool(spans) and spans[0].share > posterior.nowhere
    rivals = spans[1 : MOST_RIVALS + 1] if is_told else spans[:MOST_RIVALS]
    read = np.flatnonzero(z[:, MARK] > 0.5).tolist()
    details = {
        **(_told(spans[0], asked.text) if is_told else _NOTHING),
        "read": [_window(row, z, asked) for row in read],
        "rivals": [_told(span, asked.text) for span in rivals],
        "nowhere": posterior.nowhere,
        "unread": posterior.unread,
        "others": posterior.others,
        "unknown_share": asked.unknown_share,
        **kept,
    }
    return Answer(meaning_of(z, asked.prior, asked.sharpness), details=details)


def _told(span: Span, text: Text) -> dict[str, Any]:
    return _quoted(span.first, span.last, text) | {"share": span.share}


def _quoted(first: int, last: int, text: Text) -> dict[str, Any]:
    """A span of pieces in the characters that were sent."""
    source = text.pieces.passage_of(first)
    start, end = int(text.pieces.starts[first]), int(text.pieces.ends[last])
    passage = text.passages[source]
    while end < len(passage) and unicodedata.combining(passage[end]):
        end += 1  # an accent that stands behind its letter is in no piece
    return {"text": passage[start:end], "start": start, "end": end, "source": source}


def _window(row: int, z: Float32, asked: Asked) -> dict[str, Any]:
    """A window that was read: where it stands, and how much its best span says over no answer."""
    first, end = (int(n) for n in asked.text.windows[asked.windows[row]])
    place = _quoted(first, end - 1, asked.text)
    return {name: place[name] for name in ("source", "start", "end")} | {"score": float(z[row, SCORE])}
