"""Real plans of the graphs that ship, built by TensorRT-RTX on a CPU; to load them it wants a GPU."""

from __future__ import annotations

import pytest

from sage_edge import Settings
from sage_edge.errors import EngineError
from sage_edge.plugins import wanted_recipes
from sage_edge.runtime.building import BuildState, Machine, PlanBuilder
from sage_edge.runtime.plans import PlanStore
from sage_edge.runtime.tensorrt.api import open_tensorrt
from sage_edge.runtime.tensorrt.build import BUILDER_VERSION, build_plan
from sage_edge.runtime.tensorrt.engine import LoadedPlan
from tests.fake_tensorrt import FakeDevice
from tests.fakes import FakeClock

pytestmark = pytest.mark.trt


@pytest.fixture(scope="module")
def rtx():
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            return open_tensorrt(lambda wanted, name=name: _import(wanted, name))
        except EngineError:
            continue
    return pytest.skip("needs TensorRT-RTX: make test-tensorrt")


def _import(wanted, name):
    import importlib

    if wanted != name:
        raise ModuleNotFoundError(name=wanted)
    return importlib.import_module(name)


def recipe_of(graph, precision):
    [found] = [
        item
        for item in wanted_recipes(Settings(precision=precision))
        if item.name == f"nuclei.{graph}.{precision}"
    ]
    return found


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("graph", ["encoder", "step", "energy", "decoder"])
@pytest.mark.parametrize("width", [1, 8])
def test_every_graph_that_ships_builds_strongly_typed_with_a_static_batch(rtx, graph, precision, width):
    seen = []
    built = build_plan(
        rtx, recipe_of(graph, precision).read(), width, lambda fraction: seen.append(fraction) or True, b""
    )
    assert len(built.plan) > 100_000
    assert built.timing_cache == b""
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.5
    assert 0.75 < seen[-1] <= 1  # TensorRT ends its last phases without their last steps


def network_of(rtx, content):
    """The parsed network, and what keeps it alive."""
    trt = rtx.module
    builder = trt.Builder(rtx.logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, rtx.logger)
    assert parser.parse(content)
    return network, (builder, parser)


def test_half_precision_is_in_the_graph_and_its_energy_leaves_it_as_float32(rtx):
    trt = rtx.module
    for graph in ("encoder", "step", "energy"):
        network, _kept = network_of(rtx, recipe_of(graph, "fp16").read())
        outputs = {
            network.get_output(i).name: network.get_output(i).dtype for i in range(network.num_outputs)
        }
        assert outputs["energy"] == trt.float32
        convolutions = [
            network.get_layer(i)
            for i in range(network.num_layers)
            if network.get_layer(i).type == trt.LayerType.CONVOLUTION
        ]
        assert convolutions
        assert {layer.get_output(0).dtype for layer in convolutions} == {trt.float16}


def test_a_graph_whose_types_do_not_agree_is_refused(rtx):
    onnx = pytest.importorskip("onnx", reason="needs onnx: make test-tensorrt")
    model = onnx.load_model_from_string(recipe_of("energy", "fp16").read())
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    assert cast.attribute[0].i == onnx.TensorProto.FLOAT16
    for node in model.graph.node:  # float32 goes on where float16 is expected
        node.input[:] = [cast.input[0] if name == cast.output[0] else name for name in node.input]
    with pytest.raises(EngineError, match=r"TensorRT cannot (parse|build)") as caught:
        build_plan(rtx, model.SerializeToString(), 1, lambda fraction: True, b"")
    assert "`input` and `kernel` must be of same type" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_build_that_is_called_off_ends(rtx):
    with pytest.raises(EngineError, match="BuildCanceled"):
        build_plan(rtx, recipe_of("step", "fp16").read(), 8, lambda fraction: False, b"")


def test_what_is_no_onnx_file_is_refused(rtx):
    with pytest.raises(EngineError, match="TensorRT cannot parse the ONNX file"):
        build_plan(rtx, b"no graph", 1, lambda fraction: True, b"")


def test_without_a_gpu_a_plan_is_not_loaded_and_the_reason_is_cudas(rtx):
    device = FakeDevice()
    plan = build_plan(rtx, recipe_of("decoder", "fp16").read(), 1, lambda fraction: True, b"").plan
    if rtx.module.Runtime(rtx.logger).deserialize_cuda_engine(plan) is not None:
        pytest.skip("a GPU is here")
    with device.current(), pytest.raises(EngineError, match=r"net: TensorRT cannot load the plan: .*[Cc]uda"):
        LoadedPlan(rtx, device, plan, "net")


def test_real_plans_go_through_the_folder_unchanged(rtx, tmp_path):
    recipes, plans = [recipe_of("decoder", "fp16"), recipe_of("energy", "fp16")], []

    def build(onnx, width, advance, cache):
        built = build_plan(rtx, onnx, width, advance, cache)
        plans.append(built.plan)
        return built

    builder = PlanBuilder(PlanStore(tmp_path), Machine(rtx.label, "8.6", BUILDER_VERSION, build), FakeClock())
    assert len(builder.build(recipes, BuildState(FakeClock()))) == 6
    assert {verdict.state for verdict in builder.verdicts(recipes).values()} == {"ready"}
    assert [builder.store.load(wanted.name, wanted.key) for wanted in builder.wanted(recipes)] == plans
    assert builder.build(recipes, BuildState(FakeClock())) == []
