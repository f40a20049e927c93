# One file in, one file out: the program without methods/trishape.cpp and with this folder's window_topk.cpp knows exactly
# that of one method less and one more. Nothing else is told.
set(swapped_methods ${method_sources})
list(FILTER swapped_methods EXCLUDE REGEX "/(trishape|window_topk)\\.cpp$")
add_executable(prefillbench_swapped ${app_sources} ${swapped_methods} ${dir}/window_topk.cpp
  $<TARGET_OBJECTS:prefill_tasks> $<TARGET_OBJECTS:prefill_adapters>)
target_link_libraries(prefillbench_swapped PRIVATE prefill_core prefill_kernels_cpu dep::yaml dep::pcre2 dep::utf8proc dep::sentencepiece
  CLI11::CLI11 ${CMAKE_DL_LIBS})
if(PREFILL_CUDA)
  target_link_libraries(prefillbench_swapped PRIVATE $<LINK_ONLY:prefill_kernels_cuda> $<LINK_ONLY:libtorch::cuda>)
endif()
prefill_use_pch(prefillbench_swapped)
target_compile_options(prefillbench_swapped PRIVATE -O1)
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME example/one_file COMMAND ${Python3_EXECUTABLE} ${dir}/one_file.py $<TARGET_FILE:prefillbench> $<TARGET_FILE:prefillbench_swapped>)
set_tests_properties(example/one_file PROPERTIES LABELS example TIMEOUT 120)
