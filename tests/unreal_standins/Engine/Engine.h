#pragma once
#include "Engine/Canvas.h"
class UEngine
{
public:
	UFont* GetSmallFont() { return nullptr; }
};
extern UEngine* GEngine;
