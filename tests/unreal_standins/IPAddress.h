#pragma once
#include "CoreMinimal.h"
class FInternetAddr
{
public:
	virtual ~FInternetAddr() = default;
	virtual void SetPort(int32) = 0;
	virtual FName GetProtocolType() const = 0;
};
