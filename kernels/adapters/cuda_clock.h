// Stage times on a CUDA stream: pairs of events, read only when somebody asks for seconds().
#pragma once
#include <memory>

#include "core/clock.h"

namespace prefill::adapters {

/// Records on the current stream of the current device. begin() and end() cost two event records and no wait.
std::unique_ptr<StageClock> make_cuda_clock();

}  // namespace prefill::adapters
