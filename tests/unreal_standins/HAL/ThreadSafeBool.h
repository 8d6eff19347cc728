#pragma once
#include "CoreMinimal.h"
class FThreadSafeBool
{
public:
	FThreadSafeBool(bool bValue) : bFlag(bValue) {}
	bool operator=(bool bValue) { return bFlag = bValue; }
	operator bool() const { return bFlag; }

private:
	bool bFlag;
};
