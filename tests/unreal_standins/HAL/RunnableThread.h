#pragma once
#include "HAL/Runnable.h"
enum EThreadPriority { TPri_Normal, TPri_AboveNormal };
class FRunnableThread
{
public:
	virtual ~FRunnableThread() = default;
	static FRunnableThread* Create(FRunnable*, const TCHAR*, uint32 = 0, EThreadPriority = TPri_Normal) { return nullptr; }
	virtual void WaitForCompletion() = 0;
};
