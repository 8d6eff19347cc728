#pragma once

#include <atomic>

#include "CoreMinimal.h"
#include "RHI.h"

/**
 * Copies of frames on their way to the render thread: a few buffers that are used over and over. When all are on their
 * way the render thread is behind, and a frame is left out: there is never a queue.
 */
class FWorldwireStaging
{
public:
	struct FBuffer
	{
		TArray<uint8> Pixels;
		FUpdateTextureRegion2D Region;
		std::atomic<bool> bOnItsWay{false};
	};

	/** A buffer of at least so many bytes that nobody reads; nullptr if all are on their way. */
	FBuffer* Take(int32 Bytes)
	{
		for (FBuffer& Buffer : Buffers)
		{
			if (!Buffer.bOnItsWay.exchange(true))
			{
				Buffer.Pixels.SetNumUninitialized(Bytes);
				return &Buffer;
			}
		}
		return nullptr;
	}

private:
	static constexpr int32 Count = 3;
	FBuffer Buffers[Count];
};
