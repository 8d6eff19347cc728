#pragma once

#include "CoreMinimal.h"
#include "HAL/Runnable.h"
#include "HAL/RunnableThread.h"
#include "HAL/ThreadSafeBool.h"
#include "WorldwireTypes.h"

#include "worldwire.hpp"

/** What happened since it was last asked for; told on the game thread. */
struct FWorldwireEvents
{
	bool bReady = false;
	bool bResumed = false;
	TArray<FWorldwireProblem> Problems;
	TArray<FString> KeptStates;
};

/** The thread that polls the client. Every other method is for the game thread, and returns at once. */
class FWorldwireWorker final : public FRunnable, private worldwire::Listener
{
public:
	FWorldwireWorker(worldwire::ClientOptions Options, const worldwire::ResetOptions& Reset, int32 Window);
	/** Says goodbye and joins the thread: within a second. */
	virtual ~FWorldwireWorker() override;

	void Reset(const worldwire::ResetOptions& Reset);
	void SetPrompt(const FString& Text);
	void KeepState();
	void RestoreState(const FString& Name);
	void SendInput(const FWorldwireInput& Input);

	/** The next frame if it is due; its pixels stay as they are until the next call. */
	const worldwire::Frame* TakeFrame();
	FWorldwireEvents TakeEvents();
	FWorldwireFigures GetFigures();
	EWorldwireState GetState();

	virtual uint32 Run() override;
	virtual void Stop() override { bStop = true; }

private:
	// Called by the client from within poll, so with the lock held.
	virtual void on_state(worldwire::Client& Source) override;
	virtual void on_session(worldwire::Session& Source, bool bResumed) override;
	virtual void on_answer(const worldwire::Answer& Answer) override;
	virtual void on_error(const worldwire::Answer& Answer) override;
	void NoteRefusal(const worldwire::Answer& Answer);
	void NoteProblem();

	FCriticalSection Lock;
	FThreadSafeBool bStop = false;
	FWorldwireEvents Events;
	worldwire::Result LastCause = worldwire::Result::ok;
	double LastProgress = 0.0;
	std::int64_t KeepRequest = 0;
	worldwire::Client Client;
	worldwire::Session* Session = nullptr;
	TUniquePtr<FRunnableThread> Thread;
};
