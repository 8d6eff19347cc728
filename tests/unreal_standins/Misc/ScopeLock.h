#pragma once
#include "CoreMinimal.h"
class FScopeLock
{
public:
	explicit FScopeLock(FCriticalSection* Section) : Guard(Section->Mutex) {}

private:
	std::lock_guard<std::mutex> Guard;
};
