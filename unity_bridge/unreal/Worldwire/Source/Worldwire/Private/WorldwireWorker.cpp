#include "WorldwireWorker.h"

#include "Misc/ScopeLock.h"
#include "WorldwireLog.h"

namespace
{

constexpr int WaitMs = 2; // what the game thread asks for leaves after this at the latest

std::string ToText(const FString& Text)
{
	return std::string(TCHAR_TO_UTF8(*Text));
}

FString FromText(const std::string& Text)
{
	return FString(UTF8_TO_TCHAR(Text.c_str()));
}

EWorldwireCause CauseOf(worldwire::Result Result)
{
	switch (Result)
	{
	case worldwire::Result::ok: return EWorldwireCause::None;
	case worldwire::Result::nothing_listens: return EWorldwireCause::NothingListens;
	case worldwire::Result::unreachable: return EWorldwireCause::Unreachable;
	case worldwire::Result::bad_address: return EWorldwireCause::BadAddress;
	case worldwire::Result::loading: return EWorldwireCause::Loading;
	case worldwire::Result::version_mismatch: return EWorldwireCause::WrongVersion;
	case worldwire::Result::wrong_key: return EWorldwireCause::WrongKey;
	case worldwire::Result::missing_libzmq: return EWorldwireCause::MissingEncryption;
	case worldwire::Result::busy: return EWorldwireCause::Busy;
	case worldwire::Result::stalled: return EWorldwireCause::Stalled;
	case worldwire::Result::closed: return EWorldwireCause::Lost;
	case worldwire::Result::refused: return EWorldwireCause::Refused;
	default: return EWorldwireCause::NotWorldwire;
	}
}

worldwire::PlayerInput ToWire(const FWorldwireInput& Input)
{
	worldwire::PlayerInput Wire;
	Wire.keys = static_cast<std::uint32_t>(Input.Keys);
	Wire.yaw_deg = Input.YawDeg;
	Wire.pitch_deg = Input.PitchDeg;
	if (Input.Pose.IsSet())
	{
		const FVector P = Input.Pose->GetLocation();
		const FQuat Q = Input.Pose->GetRotation();
		Wire.pose = worldwire::from_unreal({P.X, P.Y, P.Z}, {Q.X, Q.Y, Q.Z, Q.W});
	}
	return Wire;
}

} // namespace

FWorldwireWorker::FWorldwireWorker(worldwire::ClientOptions Options, const worldwire::ResetOptions& Reset, int32 Window)
	: Client(std::move(Options), this)
{
	worldwire::OpenOptions Open;
	Open.formats = {"bgra"};
	Session = Client.open(Open);
	Session->reset(Reset);
	Session->start(Window);
	Thread.Reset(FRunnableThread::Create(this, TEXT("Worldwire"), 0, TPri_AboveNormal));
}

FWorldwireWorker::~FWorldwireWorker()
{
	Stop();
	if (Thread.IsValid())
	{
		Thread->WaitForCompletion();
	}
}

uint32 FWorldwireWorker::Run()
{
	while (!bStop)
	{
		{
			FScopeLock Guard(&Lock);
			Client.poll(0);
			NoteProblem();
		}
		Client.wait(WaitMs);
	}
	return 0;
}

void FWorldwireWorker::Reset(const worldwire::ResetOptions& Reset)
{
	FScopeLock Guard(&Lock);
	Session->reset(Reset);
}

void FWorldwireWorker::SetPrompt(const FString& Text)
{
	FScopeLock Guard(&Lock);
	Session->prompt(ToText(Text));
}

void FWorldwireWorker::KeepState()
{
	FScopeLock Guard(&Lock);
	KeepRequest = Session->keep();
}

void FWorldwireWorker::RestoreState(const FString& Name)
{
	FScopeLock Guard(&Lock);
	Session->restore(std::string_view(ToText(Name)));
}

void FWorldwireWorker::SendInput(const FWorldwireInput& Input)
{
	FScopeLock Guard(&Lock);
	Session->send_input(ToWire(Input));
}

const worldwire::Frame* FWorldwireWorker::TakeFrame()
{
	FScopeLock Guard(&Lock);
	return Session->take_due_frame();
}

FWorldwireEvents FWorldwireWorker::TakeEvents()
{
	FScopeLock Guard(&Lock);
	FWorldwireEvents Taken = MoveTemp(Events);
	Events = FWorldwireEvents();
	return Taken;
}

FWorldwireFigures FWorldwireWorker::GetFigures()
{
	FScopeLock Guard(&Lock);
	const worldwire::Session::Figures& Known = Session->figures();
	FWorldwireFigures Figures;
	Figures.FramesPerSecond = static_cast<float>(Known.frames_per_second);
	Figures.RoundTripMs = static_cast<float>(Client.round_trip_ms());
	Figures.TransportMs = static_cast<float>(Known.transport_ms);
	Figures.InputLatencyMs = static_cast<float>(Known.input_latency_ms);
	Figures.DroppedFrames = static_cast<int32>(Known.dropped + Known.skipped);
	Figures.WaitingFrames = static_cast<int32>(Session->frames_waiting());
	return Figures;
}

EWorldwireState FWorldwireWorker::GetState()
{
	FScopeLock Guard(&Lock);
	return static_cast<EWorldwireState>(Client.state());
}

void FWorldwireWorker::on_state(worldwire::Client& Source)
{
	if (Source.state() == worldwire::State::ready)
	{
		UE_LOG(LogWorldwire, Log, TEXT("Connected to %s, world %s."), UTF8_TO_TCHAR(Source.server().server.c_str()),
			UTF8_TO_TCHAR(Source.server().world.c_str()));
	}
}

void FWorldwireWorker::on_session(worldwire::Session&, bool bResumed)
{
	Events.bReady = true;
	Events.bResumed = bResumed;
}

void FWorldwireWorker::on_answer(const worldwire::Answer& Answer)
{
	if (Answer.result == worldwire::Result::refused || Answer.result == worldwire::Result::bad_argument)
	{
		NoteRefusal(Answer);
	}
	else if (Answer.result == worldwire::Result::ok && Answer.request == KeepRequest)
	{
		Events.KeptStates.Add(FromText(Answer.state));
	}
}

void FWorldwireWorker::on_error(const worldwire::Answer& Answer)
{
	NoteRefusal(Answer);
}

void FWorldwireWorker::NoteRefusal(const worldwire::Answer& Answer)
{
	FWorldwireProblem Problem;
	Problem.Cause = EWorldwireCause::Refused;
	Problem.Text = FromText(Answer.problem);
	Problem.Remedy = FromText(Answer.remedy);
	UE_LOG(LogWorldwire, Warning, TEXT("The server refused: %s. %s"), *Problem.Text, *Problem.Remedy);
	Events.Problems.Add(Problem);
}

// Tells a problem once, not with every try to connect; but the progress of a loading server each time.
void FWorldwireWorker::NoteProblem()
{
	const worldwire::Problem& Known = Client.problem();
	if (Known.cause == LastCause && (Known.cause != worldwire::Result::loading || Known.progress == LastProgress))
	{
		return;
	}
	FWorldwireProblem Problem;
	Problem.Cause = CauseOf(Known.cause);
	Problem.Text = FromText(Known.text);
	Problem.Remedy = FromText(Known.remedy);
	Problem.Progress = static_cast<float>(Known.progress);
	if (Known.cause != LastCause && Known.cause != worldwire::Result::ok)
	{
		UE_LOG(LogWorldwire, Warning, TEXT("%s %s"), *Problem.Text, *Problem.Remedy);
	}
	LastCause = Known.cause;
	LastProgress = Known.progress;
	if (Events.Problems.Num() > 0 && Events.Problems.Last().Cause == Problem.Cause)
	{
		Events.Problems.Last() = Problem; // only the newest progress counts
		return;
	}
	Events.Problems.Add(Problem);
}
