# Imported targets for LibTorch out of the PyPI wheel, without TorchConfig.cmake (which insists on a CUDA toolkit).
#   libtorch::cpu   at:: operators on the CPU; needs no CUDA toolkit to compile or link
#   libtorch::cuda  adds c10_cuda/torch_cuda and the CUDA runtime (only with PREFILL_CUDA)
set(LIBTORCH_ROOT "" CACHE PATH "site-packages/torch of the wheel (empty: ask python3)")
if(NOT LIBTORCH_ROOT)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(  # find_spec does not import torch: fast, and works without torch's Python dependencies
    COMMAND ${Python3_EXECUTABLE} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _root OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _rc ERROR_QUIET)
  if(NOT _rc EQUAL 0)
    message(FATAL_ERROR "LibTorch was not found. Run scripts/bootstrap.sh, or pass -DLIBTORCH_ROOT=<site-packages>/torch")
  endif()
  set(LIBTORCH_ROOT "${_root}" CACHE PATH "" FORCE)
endif()
if(NOT EXISTS "${LIBTORCH_ROOT}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LIBTORCH_ROOT=${LIBTORCH_ROOT} holds no lib/libtorch_cpu.so")
endif()
file(STRINGS "${LIBTORCH_ROOT}/include/torch/headeronly/version.h" _v REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]+" "" _v "${_v}")
string(REPLACE ";" "." LIBTORCH_VERSION "${_v}")
message(STATUS "LibTorch ${LIBTORCH_VERSION}: ${LIBTORCH_ROOT}")

function(_libtorch_lib target file)
  add_library(${target} SHARED IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${LIBTORCH_ROOT}/lib/${file}")
endfunction()
_libtorch_lib(libtorch::c10 libc10.so)
_libtorch_lib(libtorch::torch_cpu libtorch_cpu.so)
add_library(libtorch::cpu INTERFACE IMPORTED GLOBAL)
target_include_directories(libtorch::cpu INTERFACE  # imported, hence SYSTEM: no warnings from them
  "${LIBTORCH_ROOT}/include" "${LIBTORCH_ROOT}/include/torch/csrc/api/include")
target_link_libraries(libtorch::cpu INTERFACE libtorch::torch_cpu libtorch::c10)
# libtorch_cpu.so needs libcudart, libcupti and libgomp, which its own RPATH finds at run time; the linker would
# look for them in vain.
target_link_options(libtorch::cpu INTERFACE "LINKER:--unresolved-symbols=ignore-in-shared-libs")

# OpenMP through the very libgomp that LibTorch carries: one runtime, one thread pool in the process.
add_library(libtorch::openmp INTERFACE IMPORTED GLOBAL)
target_compile_options(libtorch::openmp INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(libtorch::openmp INTERFACE "${LIBTORCH_ROOT}/lib/libgomp.so.1")

if(PREFILL_CUDA)
  _libtorch_lib(libtorch::c10_cuda libc10_cuda.so)
  add_library(libtorch::cuda INTERFACE IMPORTED GLOBAL)
  # libtorch_cuda.so registers its kernels at load time; nothing refers to its symbols, so --as-needed would drop it.
  target_link_libraries(libtorch::cuda INTERFACE libtorch::cpu libtorch::c10_cuda
    "-Wl,--push-state,--no-as-needed,${LIBTORCH_ROOT}/lib/libtorch_cuda.so,--pop-state" CUDA::cudart)
  # NCCL's header, of the wheel beside LibTorch (scripts/bootstrap.sh --cuda) and no other: c10d's structs hold NCCL's, so
  # the version must be the one that LibTorch was built with. libtorch_cuda.so loads the library itself. Without the
  # header everything else builds; several GPUs can not share a model then.
  find_path(PREFILL_NCCL_INCLUDE nccl.h PATHS "${LIBTORCH_ROOT}/../nvidia/nccl/include" NO_DEFAULT_PATH)
  if(PREFILL_NCCL_INCLUDE)
    message(STATUS "NCCL: ${PREFILL_NCCL_INCLUDE}")
  else()
    message(STATUS "NCCL: off, nccl.h was not found (scripts/bootstrap.sh --cuda)")
  endif()
endif()
