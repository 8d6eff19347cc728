// The verbs of the probe: one program that tests and measures the client from outside.
#pragma once

#include <string>
#include <vector>

using Arguments = std::vector<std::string>;

int run_vectors(const Arguments& arguments);
int run_fuzz(const Arguments& arguments);
int run_bench(const Arguments& arguments);
int run_play(const Arguments& arguments);
int run_axes(const Arguments& arguments);
