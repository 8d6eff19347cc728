#pragma once
#include "RHI.h"
enum EPixelFormat { PF_B8G8R8A8 };
class FTextureResource;
class UTexture2D
{
public:
	static UTexture2D* CreateTransient(int32, int32, EPixelFormat = PF_B8G8R8A8, const FName = NAME_None) { return nullptr; }
	void UpdateResource() {}
	void UpdateTextureRegions(int32, uint32, const FUpdateTextureRegion2D*, uint32, uint32, uint8*,
		TFunction<void(uint8*, const FUpdateTextureRegion2D*)>) {}
	int32 GetSizeX() const { return 0; }
	int32 GetSizeY() const { return 0; }
	FTextureResource* GetResource() { return nullptr; }
	uint8 SRGB : 1;
};
