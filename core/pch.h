// Precompiled for every target that sees Torch: parsing these two is most of such a file's compile time.
#pragma once
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
