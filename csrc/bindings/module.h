#pragma once

#include <pybind11/pybind11.h>

namespace sage::bindings {

void bind_errors();
void bind_record(pybind11::module_& module);
void bind_halting(pybind11::module_& module);
void bind_chain_qp(pybind11::module_& module);
void bind_grid_way(pybind11::module_& module);
void bind_horizon(pybind11::module_& module);
void bind_ring(pybind11::module_& module);
void bind_slot_table(pybind11::module_& module);
void bind_step_text(pybind11::module_& module);
void bind_thread_pool(pybind11::module_& module);
void bind_latent_step(pybind11::module_& module);
void bind_qp_solution(pybind11::module_& module);
void bind_qp_run(pybind11::module_& module);
void bind_qp_solver(pybind11::module_& module);

}  // namespace sage::bindings
