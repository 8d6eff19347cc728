#include "WorldwireComponent.h"

#include "Engine/Texture2D.h"
#include "GameFramework/Actor.h"
#include "WorldwireLog.h"
#include "WorldwireStaging.h"
#include "WorldwireWorker.h"

namespace
{

constexpr int32 BytesPerPixel = 4; // BGRA
constexpr double DegreesOfMotion = 0.001;
constexpr double CentimetresOfMotion = 0.01;

std::string ToText(const FString& Text)
{
	return std::string(TCHAR_TO_UTF8(*Text));
}

worldwire::ResetOptions ResetOf(const UWorldwireComponent& Component)
{
	worldwire::ResetOptions Reset;
	Reset.prompt = ToText(Component.Prompt);
	Reset.image = ToText(Component.SeedImage);
	Reset.view = ToText(Component.View);
	Reset.seed = Component.Seed;
	return Reset;
}

FTransform FromWire(const worldwire::Frame& Frame)
{
	worldwire::Vector3 P;
	worldwire::Vector4 Q;
	worldwire::to_unreal({Frame.position_m, Frame.quaternion_xyzw}, &P, &Q);
	return FTransform(FQuat(Q[0], Q[1], Q[2], Q[3]), FVector(P[0], P[1], P[2]));
}

} // namespace

UWorldwireComponent::UWorldwireComponent()
{
	PrimaryComponentTick.bCanEverTick = true;
}

void UWorldwireComponent::BeginPlay()
{
	Super::BeginPlay();
	if (bConnectOnBeginPlay)
	{
		Connect();
	}
}

void UWorldwireComponent::EndPlay(const EEndPlayReason::Type Reason)
{
	Disconnect();
	Super::EndPlay(Reason);
}

void UWorldwireComponent::Connect()
{
	Disconnect();
	worldwire::ClientOptions Options;
	Options.address = ToText(Address);
	Options.name = "worldwire-unreal 1.0.0";
	Options.keys.server_public = ToText(ServerKey);
	Origin = GetOwner()->GetActorTransform();
	SentPose = FTransform::Identity;
	Worker = MakeShared<FWorldwireWorker>(std::move(Options), ResetOf(*this), Window);
}

void UWorldwireComponent::Disconnect()
{
	Worker.Reset();
}

// ------------------------------------------------------------------------------------------- requests

void UWorldwireComponent::ResetWorld()
{
	if (Worker.IsValid())
	{
		Origin = GetOwner()->GetActorTransform();
		Worker->Reset(ResetOf(*this));
	}
}

void UWorldwireComponent::ResetWorldFromPixels(const TArray<FColor>& Pixels, int32 Width, int32 Height)
{
	if (!Worker.IsValid() || Width < 1 || Height < 1 || Pixels.Num() != Width * Height)
	{
		UE_LOG(LogWorldwire, Warning, TEXT("A seed image needs a connection and width x height pixels; got %d of %d x %d."),
			Pixels.Num(), Width, Height);
		return;
	}
	TArray<uint8> Rgb;
	Rgb.Reserve(Pixels.Num() * 3);
	for (const FColor& Pixel : Pixels)
	{
		Rgb.Add(Pixel.R);
		Rgb.Add(Pixel.G);
		Rgb.Add(Pixel.B);
	}
	worldwire::ResetOptions Reset = ResetOf(*this);
	Reset.image.clear();
	Reset.pixels = {Rgb.GetData(), Width, Height};
	Origin = GetOwner()->GetActorTransform();
	Worker->Reset(Reset);
}

void UWorldwireComponent::SetPrompt(const FString& Text)
{
	Prompt = Text;
	if (Worker.IsValid())
	{
		Worker->SetPrompt(Text);
	}
}

void UWorldwireComponent::KeepState()
{
	if (Worker.IsValid())
	{
		Worker->KeepState();
	}
}

void UWorldwireComponent::RestoreState(const FString& Name)
{
	if (Worker.IsValid())
	{
		Worker->RestoreState(Name);
	}
}

void UWorldwireComponent::SetKey(EWorldwireKey Key, bool bHeld)
{
	Held.Keys = bHeld ? Held.Keys | Key : Held.Keys & ~Key;
	SendInput(); // at once: a tap may be shorter than a tick
}

void UWorldwireComponent::AddLook(double YawDeg, double PitchDeg)
{
	Held.YawDeg += YawDeg;
	Held.PitchDeg += PitchDeg;
}

EWorldwireState UWorldwireComponent::GetState() const
{
	return Worker.IsValid() ? Worker->GetState() : EWorldwireState::Idle;
}

FWorldwireFigures UWorldwireComponent::GetFigures() const
{
	return Worker.IsValid() ? Worker->GetFigures() : FWorldwireFigures();
}

// ------------------------------------------------------------------------------------------- each tick

void UWorldwireComponent::TickComponent(float DeltaTime, ELevelTick TickType, FActorComponentTickFunction* ThisTickFunction)
{
	Super::TickComponent(DeltaTime, TickType, ThisTickFunction);
	if (Worker.IsValid())
	{
		SendInput();
		ShowFrame();
		TellEvents();
	}
}

void UWorldwireComponent::SendInput()
{
	if (!Worker.IsValid())
	{
		return;
	}
	Held.Pose.Reset();
	bool bMoved = bInputIsStale || Held.YawDeg != 0.0 || Held.PitchDeg != 0.0 || Held.Keys != SentKeys;
	if (bSendPose)
	{
		FTransform Pose = GetOwner()->GetActorTransform().GetRelativeTransform(Origin);
		Pose.SetLocation(Pose.GetLocation() / PoseScale);
		bMoved |= !Pose.GetLocation().Equals(SentPose.GetLocation(), CentimetresOfMotion) ||
			Pose.GetRotation().AngularDistance(SentPose.GetRotation()) > FMath::DegreesToRadians(DegreesOfMotion);
		Held.Pose = Pose;
	}
	if (!bMoved)
	{
		return;
	}
	Worker->SendInput(Held);
	bInputIsStale = false;
	SentKeys = Held.Keys;
	SentPose = Held.Pose.Get(SentPose);
	Held.YawDeg = Held.PitchDeg = 0.0;
}

void UWorldwireComponent::ShowFrame()
{
	const worldwire::Frame* Frame = Worker->TakeFrame();
	if (Frame == nullptr || Frame->format != worldwire::PixelFormat::bgra)
	{
		return;
	}
	MakeTexture(Frame->width, Frame->height);
	Upload(Frame->pixels, Frame->width, Frame->height);
	OnFrame.Broadcast(Frame->index, FromWire(*Frame));
}

void UWorldwireComponent::TellEvents()
{
	const FWorldwireEvents Events = Worker->TakeEvents();
	if (Events.bReady)
	{
		bInputIsStale = true; // what is held now may be news to this session
		OnReady.Broadcast(Texture, Events.bResumed);
	}
	for (const FWorldwireProblem& Problem : Events.Problems)
	{
		OnProblem.Broadcast(Problem);
	}
	for (const FString& Name : Events.KeptStates)
	{
		OnStateKept.Broadcast(Name);
	}
}

// ------------------------------------------------------------------------------------------- pictures

void UWorldwireComponent::MakeTexture(int32 Width, int32 Height)
{
	if (Texture != nullptr && Texture->GetSizeX() == Width && Texture->GetSizeY() == Height)
	{
		return;
	}
	Texture = UTexture2D::CreateTransient(Width, Height, PF_B8G8R8A8);
	Texture->SRGB = true;
	Texture->UpdateResource();
	Staging = MakeShared<FWorldwireStaging, ESPMode::ThreadSafe>();
}

// The copy is this component's; the upload is a command of the render thread (UpdateTextureRegions enqueues it), which
// lets the buffer go when it has read it. Buffers outlive the component as long as a command holds them.
void UWorldwireComponent::Upload(const uint8* Pixels, int32 Width, int32 Height)
{
	const int32 Pitch = Width * BytesPerPixel;
	FWorldwireStaging::FBuffer* Buffer = Staging->Take(Pitch * Height);
	if (Buffer == nullptr)
	{
		return;
	}
	FMemory::Memcpy(Buffer->Pixels.GetData(), Pixels, Buffer->Pixels.Num());
	Buffer->Region = FUpdateTextureRegion2D(0, 0, 0, 0, Width, Height);
	Texture->UpdateTextureRegions(0, 1, &Buffer->Region, Pitch, BytesPerPixel, Buffer->Pixels.GetData(),
		[Keep = Staging, Buffer](uint8*, const FUpdateTextureRegion2D*) { Buffer->bOnItsWay = false; });
}
