#pragma once

#include <cstdlib>

#include "cuda_runtime.h"

// The host's side of CUDA's runtime, for the tests alone: memory is ordinary memory, a stream does everything
// at once, and a graph is the launches that were captured, made again. What this cannot show: anything that
// happens at the same time.

#define CUDART_VERSION 13000

namespace emulation {

/// Launches in their order; those of a WHILE node are in a graph of its own.
struct Graph {
  std::vector<Work> nodes;
  std::vector<std::shared_ptr<Graph>> bodies;
  std::vector<std::shared_ptr<std::uint32_t>> conditions;
  Graph* body_out = nullptr;

  void run() const {
    for (const Work& node : nodes) node();
  }
};

}  // namespace emulation

using cudaEvent_t = void*;
using cudaGraph_t = emulation::Graph*;
using cudaGraphExec_t = const emulation::Graph*;
using cudaGraphNode_t = const emulation::Work*;
using cudaGraphConditionalHandle = std::uint32_t*;

enum {
  cudaStreamNonBlocking = 1,
  cudaEventDisableTiming = 2,
  cudaHostAllocMapped = 2,
  cudaHostAllocPortable = 1
};
enum { cudaGraphCondAssignDefault = 1, cudaGraphCondTypeWhile = 1, cudaGraphNodeTypeConditional = 13 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDefault = 4 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusActive = 1 };

struct cudaGraphNodeParams {
  int type;
  struct {
    cudaGraphConditionalHandle handle;
    int type;
    unsigned size;
    cudaGraph_t* phGraph_out;
  } conditional;
};

inline const char* cudaGetErrorName(cudaError_t) { return "an error"; }
inline const char* cudaGetErrorString(cudaError_t) { return "of the emulation"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t size_bytes) {
  *memory = std::aligned_alloc(256, (size_bytes + 255) / 256 * 256);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** memory, std::size_t size_bytes, unsigned) {
  return cudaMalloc(memory, size_bytes);
}
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
inline cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* memory, int value, std::size_t size_bytes) {
  std::memset(memory, value, size_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* target, const void* source, std::size_t size_bytes, cudaMemcpyKind) {
  std::memcpy(target, source, size_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t size_bytes,
                                   cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(target, source, size_bytes, kind);
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = std::malloc(1);
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cudaFree(stream); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaStreamCreateWithFlags(event, 0);
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { return cudaFree(event); }

inline cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = new emulation::Graph();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t, cudaGraph_t graph, const cudaGraphNode_t*,
                                                 const void*, std::size_t, cudaStreamCaptureMode) {
  emulation::captured = &graph->nodes;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  emulation::captured = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus*, std::uint64_t*,
                                            cudaGraph_t*, const cudaGraphNode_t** last, const void*,
                                            std::size_t* count) {
  static cudaGraphNode_t node;
  node = &emulation::captured->back();
  *last = &node;
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* condition, cudaGraph_t graph,
                                                    unsigned, unsigned) {
  graph->conditions.push_back(std::make_shared<std::uint32_t>(0));
  *condition = graph->conditions.back().get();
  return cudaSuccess;
}
inline void cudaGraphSetConditional(cudaGraphConditionalHandle condition, unsigned value) {
  *condition = value;
}
inline cudaError_t cudaGraphAddNode(cudaGraphNode_t*, cudaGraph_t graph, const cudaGraphNode_t*, const void*,
                                    std::size_t, cudaGraphNodeParams* parameters) {
  const auto body = std::make_shared<emulation::Graph>();
  const cudaGraphConditionalHandle condition = parameters->conditional.handle;
  graph->bodies.push_back(body);
  graph->nodes.push_back([body, condition] {
    while (*condition != 0) body->run();
  });
  graph->body_out = body.get();
  parameters->conditional.phGraph_out = &graph->body_out;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned) {
  *exec = new emulation::Graph(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
inline cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const auto& condition : exec->conditions) *condition = 0;
  exec->run();
  return cudaSuccess;
}
