#pragma once
#include "GameFramework/Actor.h"
class APlayerController : public AActor {};
