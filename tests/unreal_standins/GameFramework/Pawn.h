#pragma once
#include "GameFramework/Actor.h"
class APawn : public AActor
{
public:
	using Super = APawn;
	virtual void SetupPlayerInputComponent(UInputComponent*) {}
};
