// All of worldwire.
#pragma once

#include "worldwire/axes.h"
#include "worldwire/client.h"
#include "worldwire/frames.h"
#include "worldwire/protocol.h"
#include "worldwire/result.h"
#include "worldwire/socket.h"
#include "worldwire/threaded_client.h"
#include "worldwire/transport.h"
