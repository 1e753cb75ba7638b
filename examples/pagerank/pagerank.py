"""PageRank of a small web as a document: links in, ranks out, better with each step."""

import numpy as np

from sage_edge import DOCUMENT, Answer, HaltPolicy, Invariants, IRPPlugin, IRPState
from sage_edge.errors import ParameterError

MOST_PAGES = 10_000


class PageRank(IRPPlugin):
    """The stationary distribution of a random surfer, by power iteration.

    State space: float64 [n], probabilities of the pages; they sum to 1.
    Noise model: multiplicative noise on the probabilities, brought back to a sum of 1 by the projection.
    Energy: decimal logarithm of the L1 distance between a distribution and the next one, never below -12.
    Coherence contribution: a fall of this energy, over E_scale, times the plugin's trust weight.
    """

    invariants = Invariants("distribution", "multiplicative", "log-residual", "decades")
    takes = DOCUMENT
    halting = HaltPolicy(eps=1e-3, max_steps=60)
    noise_sigma = 0.5

    def prepare(self, x):
        links = x.get("links")
        is_map = isinstance(links, dict) and links and all(isinstance(to, list) for to in links.values())
        if not is_map or set(x) - {"links", "damping"}:
            raise ParameterError('problem: expected {"links": {"page": ["page", …], …}, "damping": 0.85}')
        names = sorted({*links, *(str(page) for to in links.values() for page in to)})
        damping = x.get("damping", 0.85)
        if len(names) > MOST_PAGES or not isinstance(damping, float) or not 0 < damping < 1:
            raise ParameterError(f"problem: expected up to {MOST_PAGES} pages and a damping between 0 and 1")
        index = {name: number for number, name in enumerate(names)}
        edges = [(index[page], index[str(to)]) for page, targets in links.items() for to in targets]
        return {"names": names, "edges": np.array(edges, np.int64).reshape(-1, 2), "damping": damping}

    def example(self):
        return self.prepare({"links": {"a": ["b", "c"], "b": ["c"], "c": ["a"], "d": ["c"]}})

    def init_state(self, x0, task_ctx):
        n = len(x0["names"])
        return IRPState(np.full(n, 1 / n), 0, {"web": x0})

    def energy(self, state):
        moved = np.abs(_surf(state.x, state.meta["web"]) - state.x).sum()
        return float(max(np.log10(moved), -12.0)) if moved > 0 else -12.0

    def step(self, state, noise_schedule):
        return IRPState(_surf(state.x, state.meta["web"]), state.step_idx + 1, state.meta)

    def project(self, state):
        x = np.maximum(state.x, 0.0)
        total = x.sum()
        if abs(total - 1.0) < 1e-12 and (x == state.x).all():
            return state
        return IRPState(x / total, state.step_idx, state.meta)

    def perturb(self, state, sigma, rng):
        noise = np.exp(sigma * rng.standard_normal(state.x.shape))
        return IRPState(state.x * noise, state.step_idx, state.meta)

    def decode(self, state):
        order = np.argsort(-state.x)[:10]
        names = state.meta["web"]["names"]
        return Answer(state.x, details={"top": {names[i]: float(state.x[i]) for i in order}})


def _surf(x, web):
    """One step of the surfer: along a link, or anywhere."""
    source, target = web["edges"].T
    out = np.bincount(source, minlength=len(x))
    share = np.where(out > 0, x / np.maximum(out, 1), 0.0)
    followed = np.bincount(target, weights=share[source], minlength=len(x))
    lost = x[out == 0].sum()
    return web["damping"] * (followed + lost / len(x)) + (1 - web["damping"]) / len(x)
