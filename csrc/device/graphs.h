#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>

#include "device/owners.h"

namespace sage {

/// Enqueues work on a stream.
using Enqueue = std::function<void(cudaStream_t)>;
/// Enqueues work on a stream that sets the condition of a WHILE graph.
using EnqueueWithCondition = std::function<void(cudaGraphConditionalHandle, cudaStream_t)>;

/// What `work` enqueues on `stream`, as a graph; nothing runs.
/// @throws what `work` throws, and CudaError when it does what cannot be captured.
Graph capture(const Enqueue& work, cudaStream_t stream);

/// Nodes of a graph, those of child graphs and bodies not counted.
std::size_t node_count(const Graph& graph);

GraphExec instantiate(const Graph& graph);

/// A graph that runs `head` once and then `body` for as long as the condition is not 0 when it is looked at.
/// Both set the condition. CUDA 12.4 and later.
Graph while_graph(const EnqueueWithCondition& head, const EnqueueWithCondition& body, cudaStream_t stream);

/// Runs a WHILE graph of three passes on the current device.
/// @returns why WHILE graphs cannot be used here; empty: they can.
std::string why_no_while();

}  // namespace sage
