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
