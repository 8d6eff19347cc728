#pragma once
#include "CanvasItem.h"
class UFont
{
public:
	float GetMaxCharHeight() const { return 0; }
};
class UCanvas
{
public:
	int32 SizeX = 0, SizeY = 0;
	void DrawItem(FCanvasTileItem&) {}
	float DrawText(const UFont*, const FString&, float, float) { return 0; }
};
