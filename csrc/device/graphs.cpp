#include "device/graphs.h"

#include "device/condition.cuh"

namespace sage {

namespace {

constexpr int kFirstDriver = 12040;  // CUDA 12.4 documents WHILE nodes

/// Captures into a graph that is there already. A capture that fails is ended before the error goes on.
void capture_into(cudaGraph_t graph, const Enqueue& work, cudaStream_t stream) {
  SAGE_CUDA_TRY(
      cudaStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0, cudaStreamCaptureModeThreadLocal));
  try {
    work(stream);
  } catch (...) {
    cudaGraph_t broken;
    static_cast<void>(cudaStreamEndCapture(stream, &broken));
    static_cast<void>(cudaGetLastError());
    throw;
  }
  cudaGraph_t same;
  SAGE_CUDA_TRY(cudaStreamEndCapture(stream, &same));
}

Graph empty_graph() {
  cudaGraph_t graph;
  SAGE_CUDA_TRY(cudaGraphCreate(&graph, 0));
  return Graph(graph);
}

/// The node that what is captured next will follow.
cudaGraphNode_t last_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status;
  const cudaGraphNode_t* nodes = nullptr;
  std::size_t count = 0;
#if CUDART_VERSION >= 13000  // one argument more: data of the edges
  SAGE_CUDA_TRY(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, nullptr, &count));
#else
  SAGE_CUDA_TRY(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &count));
#endif
  if (count != 1) {
    throw CudaError("head of a WHILE graph: expected one last node, got " + std::to_string(count));
  }
  return nodes[0];
}

/// Adds a WHILE node after `before`. @returns its body, which belongs to `graph`.
cudaGraph_t add_while(cudaGraph_t graph, cudaGraphConditionalHandle condition, cudaGraphNode_t before) {
  cudaGraphNodeParams parameters = {};
  parameters.type = cudaGraphNodeTypeConditional;
  parameters.conditional.handle = condition;
  parameters.conditional.type = cudaGraphCondTypeWhile;
  parameters.conditional.size = 1;
  cudaGraphNode_t node;
#if CUDART_VERSION >= 13000  // likewise
  SAGE_CUDA_TRY(cudaGraphAddNode(&node, graph, &before, nullptr, 1, &parameters));
#else
  SAGE_CUDA_TRY(cudaGraphAddNode(&node, graph, &before, 1, &parameters));
#endif
  return parameters.conditional.phGraph_out[0];
}

void run_three_passes() {
  constexpr std::uint32_t kPasses = 3;
  const Stream stream = make_stream();
  const MappedArray<std::uint32_t> left(1);
  left.host()[0] = kPasses;
  const EnqueueWithCondition pass = [&](cudaGraphConditionalHandle condition, cudaStream_t on) {
    SAGE_CUDA_TRY(launch_count_down(condition, left.device(), on));
  };
  const GraphExec exec = instantiate(while_graph(pass, pass, stream.get()));
  SAGE_CUDA_TRY(cudaGraphLaunch(exec.get(), stream.get()));
  SAGE_CUDA_TRY(cudaStreamSynchronize(stream.get()));
  if (left.host()[0] != 0) {
    throw CudaError("WHILE graph: expected " + std::to_string(kPasses) + " passes, got " +
                    std::to_string(kPasses - left.host()[0]));
  }
}

}  // namespace

Graph capture(const Enqueue& work, cudaStream_t stream) {
  Graph graph = empty_graph();
  capture_into(graph.get(), work, stream);
  return graph;
}

std::size_t node_count(const Graph& graph) {
  std::size_t count = 0;
  SAGE_CUDA_TRY(cudaGraphGetNodes(graph.get(), nullptr, &count));
  return count;
}

GraphExec instantiate(const Graph& graph) {
  cudaGraphExec_t exec;
  SAGE_CUDA_TRY(cudaGraphInstantiate(&exec, graph.get(), 0));
  return GraphExec(exec);
}

Graph while_graph(const EnqueueWithCondition& head, const EnqueueWithCondition& body, cudaStream_t stream) {
  Graph graph = empty_graph();
  cudaGraphConditionalHandle condition;
  SAGE_CUDA_TRY(cudaGraphConditionalHandleCreate(&condition, graph.get(), 0, cudaGraphCondAssignDefault));
  cudaGraphNode_t last;
  capture_into(
      graph.get(),
      [&](cudaStream_t on) {
        head(condition, on);
        last = last_captured(on);
      },
      stream);
  capture_into(
      add_while(graph.get(), condition, last), [&](cudaStream_t on) { body(condition, on); }, stream);
  return graph;
}

std::string why_no_while() {
  int driver = 0;
  SAGE_CUDA_TRY(cudaDriverGetVersion(&driver));
  if (driver < kFirstDriver) {
    return "the driver speaks CUDA " + std::to_string(driver / 1000) + "." +
           std::to_string(driver % 1000 / 10) + ", WHILE graphs need 12.4";
  }
  try {
    run_three_passes();
  } catch (const CudaError& error) {
    static_cast<void>(cudaGetLastError());
    return error.what();
  }
  return "";
}

}  // namespace sage
