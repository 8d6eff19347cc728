// The engine-neutral client, compiled once for this module.
#include "CoreMinimal.h"

#define WORLDWIRE_IMPLEMENTATION
#include "worldwire.hpp"
