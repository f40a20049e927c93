#include "core/calibrate.h"

namespace prefill {

Registry<CalibratorInfo>& calibrators() {
  static Registry<CalibratorInfo> all("calibration");
  return all;
}

}  // namespace prefill
