# The rules restated in plain Python, against the built program.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME scoring/properties COMMAND ${Python3_EXECUTABLE} ${dir}/properties.py $<TARGET_FILE:prefillbench>)
set_tests_properties(scoring/properties PROPERTIES LABELS scoring TIMEOUT 600)
# a large file of predictions in little memory; prints its time
add_test(NAME scoring/streaming COMMAND ${Python3_EXECUTABLE} ${dir}/streaming.py $<TARGET_FILE:prefillbench> $<$<BOOL:${PREFILL_SANITIZE}>:--sanitized>)
set_tests_properties(scoring/streaming PROPERTIES LABELS scoring TIMEOUT 300)
