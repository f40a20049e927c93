// Figures are drawn by scripts/draw.py from pareto.json; this finds the script and a Python, and runs them.
#pragma once
#include <string>
#include <vector>

namespace prefill {

/// The script: share/draw.py beside the program (installed), else scripts/draw.py of the source tree that
/// built it.
/// "" when neither exists.
std::string find_draw_script();

/// $PREFILLBENCH_PYTHON, else the virtual environment of the source tree or beside the program, else python3.
std::string find_python();

/// Runs `python draw.py arguments…` with the terminal's stderr and this program's stdout.
/// Returns "" when it worked, else one line that says what to do.
std::string run_draw(const std::vector<std::string>& arguments);

}  // namespace prefill
