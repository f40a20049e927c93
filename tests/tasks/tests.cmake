find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME tasks/importer COMMAND ${Python3_EXECUTABLE} ${dir}/importer.py)
set_tests_properties(tasks/importer PROPERTIES LABELS tasks TIMEOUT 60)
# all of InfiniteBench's tasks: import, run, score, report
add_test(NAME tasks/end_to_end COMMAND ${Python3_EXECUTABLE} ${dir}/end_to_end.py $<TARGET_FILE:prefillbench>)
set_tests_properties(tasks/end_to_end PROPERTIES LABELS tasks TIMEOUT 600)
# perplexity and agreement: run, store, report, compare
add_test(NAME tasks/teacher_forced COMMAND ${Python3_EXECUTABLE} ${dir}/teacher_forced.py $<TARGET_FILE:prefillbench>)
set_tests_properties(tasks/teacher_forced PROPERTIES LABELS tasks TIMEOUT 600)
# samples and predictions that are not as they should be
add_test(NAME tasks/robustness COMMAND ${Python3_EXECUTABLE} ${dir}/robustness.py $<TARGET_FILE:prefillbench>)
set_tests_properties(tasks/robustness PROPERTIES LABELS tasks TIMEOUT 600)
# training data of the long-context adapter: needs numpy (of the set-up's Python) and the fetched model's tokenizer
find_program(PREFILL_NUMPY_PYTHON NAMES python3 HINTS "${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin" NO_CMAKE_SYSTEM_PATH)
find_program(PREFILL_NUMPY_PYTHON NAMES python3)
add_test(NAME tasks/long_context_data COMMAND ${PREFILL_NUMPY_PYTHON} ${dir}/long_context_data.py $<TARGET_FILE:prefillbench>)
set_tests_properties(tasks/long_context_data PROPERTIES LABELS tasks TIMEOUT 600 SKIP_RETURN_CODE 77)
