#include "bindings/module.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled core of sage_edge. Use it through sage_edge.native.";
  sage::bindings::bind_errors();
  sage::bindings::bind_record(module);
  sage::bindings::bind_halting(module);
  sage::bindings::bind_chain_qp(module);
  sage::bindings::bind_grid_way(module);
  sage::bindings::bind_horizon(module);
  sage::bindings::bind_ring(module);
  sage::bindings::bind_slot_table(module);
  sage::bindings::bind_step_text(module);
  sage::bindings::bind_thread_pool(module);
  sage::bindings::bind_latent_step(module);
  sage::bindings::bind_qp_solution(module);
  sage::bindings::bind_qp_run(module);
  sage::bindings::bind_qp_solver(module);  // names the two before in its signatures
}
