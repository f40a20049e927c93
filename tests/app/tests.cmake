# The program as a user meets it: stopped, killed, sharded, given bad input, installed.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME app/run COMMAND ${Python3_EXECUTABLE} ${dir}/run.py $<TARGET_FILE:prefillbench>)
set_tests_properties(app/run PROPERTIES LABELS app TIMEOUT 600)
add_test(NAME app/bad_input COMMAND ${Python3_EXECUTABLE} ${dir}/bad_input.py $<TARGET_FILE:prefillbench>)
set_tests_properties(app/bad_input PROPERTIES LABELS app TIMEOUT 600)
add_test(NAME app/round_trip COMMAND ${Python3_EXECUTABLE} ${dir}/round_trip.py $<TARGET_FILE:prefillbench>)
set_tests_properties(app/round_trip PROPERTIES LABELS app TIMEOUT 600)
add_test(NAME app/families COMMAND ${Python3_EXECUTABLE} ${dir}/families.py $<TARGET_FILE:prefillbench>)
set_tests_properties(app/families PROPERTIES LABELS app TIMEOUT 600)
if(NOT PREFILL_CUDA)  # with CUDA the folder has gigabytes
  add_test(NAME app/installed COMMAND ${Python3_EXECUTABLE} ${dir}/installed.py ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR})
  set_tests_properties(app/installed PROPERTIES LABELS app TIMEOUT 300)
endif()
