#pragma once
#include "CoreMinimal.h"
class UCanvas;
class APlayerController;
struct FDebugDrawDelegate
{
	template <class T>
	static FDebugDrawDelegate CreateUObject(T*, void (T::*)(UCanvas*, APlayerController*)) { return {}; }
};
class UDebugDrawService
{
public:
	static FDelegateHandle Register(const TCHAR*, const FDebugDrawDelegate&) { return {}; }
	static void Unregister(FDelegateHandle) {}
};
