# One precompiled header (core/pch.h) for every target that sees Torch: 6 of the 10 seconds that such a file takes are
# the parsing of ATen's headers. All these targets have the same flags, so one header serves them all.
option(PREFILL_PCH "precompile ATen's headers" ON)
function(prefill_use_pch target)
  if(PREFILL_PCH)
    target_precompile_headers(${target} REUSE_FROM prefill_core)
  endif()
endfunction()
if(PREFILL_PCH)
  target_precompile_headers(prefill_core PRIVATE "${PROJECT_SOURCE_DIR}/core/pch.h")
  target_compile_options(prefill_core PUBLIC $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  # what ccache keys the header by: its own bytes differ with every build of it
  file(SHA256 "${PROJECT_SOURCE_DIR}/core/pch.h" _pch)
  file(WRITE "${CMAKE_BINARY_DIR}/CMakeFiles/prefill_core.dir/cmake_pch.hxx.gch.sum"
    "${_pch} ${LIBTORCH_VERSION} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${PREFILL_SANITIZE} ${PREFILL_CUDA}\n")
endif()
