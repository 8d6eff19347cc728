#pragma once
#include "CoreMinimal.h"
class FTextureResource;
class FCanvasTileItem
{
public:
	FCanvasTileItem(const FVector2D&, const FTextureResource*, const FVector2D&, const FLinearColor&) {}
};
