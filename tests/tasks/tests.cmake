find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME tasks/importer COMMAND ${Python3_EXECUTABLE} ${dir}/importer.py)
set_tests_properties(tasks/importer PROPERTIES LABELS tasks TIMEOUT 60)
