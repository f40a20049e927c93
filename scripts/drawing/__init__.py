"""Figures of prefillbench: every module turns JSON written by the program into files."""
