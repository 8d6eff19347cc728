#pragma once
#include "CoreMinimal.h"
enum EInputEvent { IE_Pressed, IE_Released };
struct FKey {};
struct EKeys
{
	static const FKey W, A, S, D, MouseX, MouseY;
};
