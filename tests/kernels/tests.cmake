# The same assertions on the code path of machines without AVX2.
add_test(NAME kernels/generic_isa COMMAND test_kernels --gtest_brief=1 --gtest_filter=-*cpu_ref*)
set_tests_properties(kernels/generic_isa PROPERTIES LABELS kernels ENVIRONMENT PREFILL_CPU_ISA=generic TIMEOUT 900)
