# report and compare as a user runs them; figures and page are checked when the Python has matplotlib and plotly
find_program(PREFILL_REPORT_PYTHON NAMES python3 HINTS "${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin" NO_CMAKE_SYSTEM_PATH)
find_program(PREFILL_REPORT_PYTHON NAMES python3)
add_test(NAME report/end_to_end COMMAND ${PREFILL_REPORT_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/tests/report/test_end_to_end.py $<TARGET_FILE:prefillbench>)
set_tests_properties(report/end_to_end PROPERTIES LABELS report TIMEOUT 900)
