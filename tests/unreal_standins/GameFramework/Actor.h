#pragma once
#include "CoreMinimal.h"
namespace EEndPlayReason { enum Type { Quit }; }
struct FTickFunction { bool bCanEverTick = false; };
class UInputComponent;
class AActor
{
public:
	using Super = AActor;
	virtual ~AActor() = default;
	virtual void BeginPlay() {}
	virtual void EndPlay(const EEndPlayReason::Type) {}
	FTransform GetActorTransform() const { return {}; }
	template <class T>
	T* CreateDefaultSubobject(const TCHAR*) { return nullptr; }
};
