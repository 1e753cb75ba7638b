"""A torch network as an engine: on the CPU it says what ONNX Runtime says of the same weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-training")

from sage_edge.errors import EngineError  # noqa: E402
from sage_edge.irp import Answer  # noqa: E402
from sage_edge.native import HaltPolicy, Ring  # noqa: E402
from sage_edge.runtime import CpuRefiner, Job, open_slots  # noqa: E402
from sage_edge.runtime.engine import OnnxEngine  # noqa: E402
from sage_edge.runtime.torch_engine import TorchEngine  # noqa: E402
from tests.quadratic import QuadraticPlugin  # noqa: E402

pytestmark = [
    pytest.mark.training,
    # Raised inside torch's exporter, whatever is exported.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
CHANNELS, SIDE = 4, 6


class Step(torch.nn.Module):
    """Direction and energy terms of the successor, as a slot program's step engine gives them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, z, ctx, step_size):
        delta = self.drop(torch.tanh(self.conv(torch.cat([z, ctx], 1)))) - 0.1 * z
        moved = (z + step_size.view(-1, 1, 1, 1) * delta).clamp(-8, 8)
        return delta, moved.square().flatten(1)


INPUTS = {"z": (CHANNELS, SIDE, SIDE), "ctx": (CHANNELS, SIDE, SIDE), "step_size": ()}
OUTPUTS = ("delta", "energy")


@pytest.fixture(scope="module")
def net():
    return Step()


@pytest.fixture(scope="module")
def engine(net):
    return TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS)


def arrays(rows, seed=1):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, *shape)).astype(np.float32) for name, shape in INPUTS.items()}


def exported(net):
    given = tuple(torch.from_numpy(array) for array in arrays(2).values())
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(net.eval(), given, dynamic_shapes=tuple({0: batch} for _ in given))


@pytest.fixture(scope="module")
def onnx_engine(net, tmp_path_factory):
    """The same weights through ONNX Runtime."""
    import onnx

    path = tmp_path_factory.mktemp("onnx") / "step.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            net.eval(),
            tuple(torch.from_numpy(array) for array in arrays(2).values()),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in INPUTS),
            dynamo=True,
            verbose=False,
        )
    onnx.save(program.model_proto, path)
    return OnnxEngine(path, threads=1)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_it_says_what_onnx_runtime_says_of_the_same_weights(engine, onnx_engine, rows):
    given = arrays(rows)
    engine.require(list(INPUTS), OUTPUTS)
    ours, theirs = engine.run(given), onnx_engine.run(given)
    assert set(ours) == set(theirs) == set(OUTPUTS)
    for name in OUTPUTS:
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)  # the order of float32 sums


def test_an_exported_program_is_as_good_as_its_module(net, engine):
    program = TorchEngine(exported(net), inputs=INPUTS, outputs=OUTPUTS)
    given = arrays(5)
    for name, result in program.run(given).items():
        np.testing.assert_allclose(result, engine.run(given)[name], atol=1e-6)  # a few roundings of float32


def test_a_net_in_training_mode_is_put_into_inference_mode(net):
    net.train()
    engine = TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS)
    given = arrays(2)
    first, second = engine.run(given), engine.run(given)
    np.testing.assert_array_equal(first["delta"], second["delta"])  # dropout would differ


def test_results_are_the_callers_to_keep_and_inputs_stay_as_they_were(engine):
    given = arrays(2)
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    result = engine.run(given)["delta"]
    kept = result.copy()
    engine.run(arrays(2, seed=2))
    np.testing.assert_array_equal(result, kept)
    result[:] = 0
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_enqueue_reads_and_writes_the_callers_memory_by_dlpack(engine):
    given = arrays(3)
    targets = {
        "delta": np.empty((3, *INPUTS["z"]), np.float32),
        "energy": np.empty((3, CHANNELS * SIDE**2), np.float32),
    }
    execution = engine.open({**given, **targets})
    execution.warm_up(0)
    for seed in (4, 5):
        for name, array in arrays(3, seed).items():
            given[name][:] = array
        execution.enqueue(0)
        for name, expected in engine.run(given).items():
            np.testing.assert_array_equal(targets[name], expected)


def test_its_ends_are_found_by_a_pass_and_it_binds_what_has_them(engine):
    assert engine.ends["delta"] == (INPUTS["z"], np.dtype(np.float32))
    assert engine.ends["energy"] == ((CHANNELS * SIDE**2,), np.dtype(np.float32))
    given = arrays(3)
    targets = {name: np.empty((3, *engine.ends[name].shape), np.float32) for name in OUTPUTS}
    engine.bind({**given, **targets})(0)
    for name, expected in engine.run(given).items():
        np.testing.assert_array_equal(targets[name], expected)


class TorchPlugin(QuadraticPlugin):
    """The quadratic plugin with torch for its step."""

    backend = "torch-cpu"

    def __init__(self):
        super().__init__()

        class Towards(torch.nn.Module):
            def forward(self, z, target, step_size):
                delta = target - z
                return delta, ((z + step_size[:, None] * delta).clamp(-100, 100) - target) ** 2

        self.engine = TorchEngine(
            Towards(), inputs={"z": (6,), "target": (6,), "step_size": ()}, outputs=("delta", "energy")
        )

    def advance(self, z, context, step_size):
        out = self.engine.run({"z": z, **context, "step_size": step_size})
        return out["delta"], out["energy"]


def refined(plugin):
    """Steps, reasons and answers of three jobs in two slots."""
    import itertools

    clock = itertools.count(0, 1000)
    refiner = CpuRefiner(
        open_slots(plugin, capacity=2, threads=1, history=0),
        plugin.example,
        ring=Ring(64),
        plugin_number=0,
        now_ns=lambda: next(clock),
    )
    waiting = [
        Job(n, np.full(6, 1.0 + n, np.float32), HaltPolicy(K=2, eps=1e-3, max_steps=20)) for n in range(3)
    ]
    finished = []
    while waiting or refiner.live:
        jobs, waiting = waiting[: refiner.free], waiting[refiner.free :]
        finished += refiner.admit(jobs) + refiner.tick()
    return [
        (f.job.run_id, f.summary.step_idx, f.summary.halt_reason, f.answer.array.tolist()) for f in finished
    ]


def test_a_latent_plugin_can_step_by_torch():
    assert isinstance(TorchPlugin().answers(np.zeros((1, 6), np.float32), [None])[0], Answer)
    with_torch = refined(TorchPlugin())
    assert with_torch == refined(QuadraticPlugin())
    assert len(with_torch) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda net: TorchEngine(lambda z: z, inputs={"z": ()}, outputs=["y"]),
            "nn.Module or ExportedProgram, got function",
        ),
        (
            lambda net: TorchEngine(net, inputs=INPUTS, outputs=["delta"]).run(arrays(1)),
            "expected 1 results, got 2",
        ),
        (
            lambda net: TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS).run({}),
            r"expected inputs .*, got \[\]",
        ),
        (
            lambda net: TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS).open({}),
            r"expected tensors .*, got \[\]",
        ),
        (
            lambda net: TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS, device="warp:9"),
            "device 'warp:9' cannot be used",
        ),
    ],
)
def test_what_does_not_fit_is_refused(net, make, words):
    with pytest.raises(EngineError, match=words):
        make(net)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here_is_refused_by_name(net):
    with pytest.raises(EngineError, match="device 'cuda:0' cannot be used"):
        TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS, device="cuda:0")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_captured_pass_is_replayed_on_new_inputs(net):
    engine = TorchEngine(net, inputs=INPUTS, outputs=OUTPUTS, device="cuda:0")
    tensors = {name: torch.from_numpy(array).cuda() for name, array in arrays(4).items()}
    tensors |= {name: torch.from_numpy(array).cuda() for name, array in engine.run(arrays(4)).items()}
    execution, graph, stream = engine.open(tensors), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    execution.warm_up(stream.cuda_stream)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        execution.enqueue(stream.cuda_stream)
    for name, array in arrays(4, seed=7).items():
        tensors[name].copy_(torch.from_numpy(array))
    graph.replay()
    torch.cuda.synchronize()
    for name, expected in engine.run(arrays(4, seed=7)).items():
        np.testing.assert_allclose(tensors[name].cpu().numpy(), expected, atol=1e-5)
