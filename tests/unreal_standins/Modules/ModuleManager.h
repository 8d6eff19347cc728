#pragma once
#include "CoreMinimal.h"
class FDefaultModuleImpl {};
#define IMPLEMENT_MODULE(Class, Name) inline Class Name##Module;
