# Guard bands, strides and bit equality at the level of kernels/api.h; exit status 77: no GPU here.
add_test(NAME cuda/probe COMMAND cuda_probe check)
set_tests_properties(cuda/probe PROPERTIES LABELS cuda SKIP_RETURN_CODE 77 TIMEOUT 600)
