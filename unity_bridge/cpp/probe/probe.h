// The verbs of the probe, and what they share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worldwire/bytes.h"

using Arguments = std::vector<std::string>;

int run_vectors(const Arguments& arguments);
int run_fuzz(const Arguments& arguments);
int run_fuzz_stream(const Arguments& arguments);
int run_bench(const Arguments& arguments);
int run_play(const Arguments& arguments);
int run_axes(const Arguments& arguments);
int run_units(const Arguments& arguments);
int run_threaded(const Arguments& arguments);

// The whole file; empty if it cannot be read.
worldwire::Buffer read_file(const std::string& path);

// Calls of malloc and its like since the program began; -1 where they cannot be counted.
std::int64_t allocations();

// Memory of this process that is in use, KiB; 0 where that is unknown.
std::int64_t resident_kib();
