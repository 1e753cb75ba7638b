# The rooms that need CUDA. They link its static runtime, which finds the driver when it is first asked: a module built
# with them loads, and answers that there is no device, where there is none.
find_package(CUDAToolkit REQUIRED)

add_library(sage_device STATIC
  csrc/kernels/exchange.cu
  csrc/kernels/latent_step.cu
  csrc/device/clock.cu
  csrc/device/condition.cu
  csrc/device/graphs.cpp
  csrc/device/owners.cpp
  csrc/device/refine_loop.cpp)
set_target_properties(sage_device PROPERTIES
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
target_link_libraries(sage_device PUBLIC sage_core CUDA::cudart_static)
target_include_directories(sage_device PUBLIC csrc)
# No fused multiply-add: the same bits as on the CPU. Errors name a file by its place in the repository.
set(from_root -fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=)
target_compile_options(sage_device PUBLIC
  $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --expt-relaxed-constexpr -Xcompiler=${from_root}>
  $<$<COMPILE_LANGUAGE:CXX>:${from_root}>)
