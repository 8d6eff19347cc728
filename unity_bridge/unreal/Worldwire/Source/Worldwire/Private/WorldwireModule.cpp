#include "WorldwireLog.h"

#include "Modules/ModuleManager.h"

DEFINE_LOG_CATEGORY(LogWorldwire);

IMPLEMENT_MODULE(FDefaultModuleImpl, Worldwire)
