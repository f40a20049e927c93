# calibrate, capture, select and attend as a user runs them, on a made-up model
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME methods/verbs COMMAND ${Python3_EXECUTABLE} ${dir}/verbs.py $<TARGET_FILE:prefillbench>)
set_tests_properties(methods/verbs PROPERTIES LABELS methods TIMEOUT 300)
# docs/methods.md is written from the registry
add_test(NAME methods/docs COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/scripts/make_method_docs.py --check --binary $<TARGET_FILE:prefillbench>)
set_tests_properties(methods/docs PROPERTIES LABELS methods TIMEOUT 300)
