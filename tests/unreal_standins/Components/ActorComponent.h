#pragma once
#include "GameFramework/Actor.h"
enum ELevelTick { LEVELTICK_All };
struct FActorComponentTickFunction : FTickFunction {};
class UActorComponent
{
public:
	using Super = UActorComponent;
	virtual ~UActorComponent() = default;
	virtual void BeginPlay() {}
	virtual void EndPlay(const EEndPlayReason::Type) {}
	virtual void TickComponent(float, ELevelTick, FActorComponentTickFunction*) {}
	AActor* GetOwner() const { return nullptr; }
	FActorComponentTickFunction PrimaryComponentTick;
};
