#include "WorldwireWalker.h"

#include "CanvasItem.h"
#include "Components/InputComponent.h"
#include "Debug/DebugDrawService.h"
#include "Engine/Canvas.h"
#include "Engine/Engine.h"
#include "Engine/Texture2D.h"
#include "GameFramework/PlayerController.h"
#include "InputCoreTypes.h"
#include "WorldwireComponent.h"

namespace
{

constexpr float Margin = 12.0f;

} // namespace

AWorldwireWalker::AWorldwireWalker()
{
	World = CreateDefaultSubobject<UWorldwireComponent>(TEXT("World"));
}

void AWorldwireWalker::BeginPlay()
{
	Super::BeginPlay();
	World->OnProblem.AddDynamic(this, &AWorldwireWalker::ShowProblem);
	DrawHandle = UDebugDrawService::Register(TEXT("Game"), FDebugDrawDelegate::CreateUObject(this, &AWorldwireWalker::Draw));
}

void AWorldwireWalker::EndPlay(const EEndPlayReason::Type Reason)
{
	UDebugDrawService::Unregister(DrawHandle);
	World->OnProblem.RemoveDynamic(this, &AWorldwireWalker::ShowProblem);
	Super::EndPlay(Reason);
}

template <EWorldwireKey Key>
void AWorldwireWalker::Press()
{
	World->SetKey(Key, true);
}

template <EWorldwireKey Key>
void AWorldwireWalker::Release()
{
	World->SetKey(Key, false);
}

// Keys themselves rather than named actions: the sample wants no change of a project's input settings.
void AWorldwireWalker::SetupPlayerInputComponent(UInputComponent* Input)
{
	Super::SetupPlayerInputComponent(Input);
	Input->BindKey(EKeys::W, IE_Pressed, this, &AWorldwireWalker::Press<EWorldwireKey::Forward>);
	Input->BindKey(EKeys::W, IE_Released, this, &AWorldwireWalker::Release<EWorldwireKey::Forward>);
	Input->BindKey(EKeys::S, IE_Pressed, this, &AWorldwireWalker::Press<EWorldwireKey::Back>);
	Input->BindKey(EKeys::S, IE_Released, this, &AWorldwireWalker::Release<EWorldwireKey::Back>);
	Input->BindKey(EKeys::A, IE_Pressed, this, &AWorldwireWalker::Press<EWorldwireKey::Left>);
	Input->BindKey(EKeys::A, IE_Released, this, &AWorldwireWalker::Release<EWorldwireKey::Left>);
	Input->BindKey(EKeys::D, IE_Pressed, this, &AWorldwireWalker::Press<EWorldwireKey::Right>);
	Input->BindKey(EKeys::D, IE_Released, this, &AWorldwireWalker::Release<EWorldwireKey::Right>);
	Input->BindAxisKey(EKeys::MouseX, this, &AWorldwireWalker::Turn);
	Input->BindAxisKey(EKeys::MouseY, this, &AWorldwireWalker::LookUp);
}

void AWorldwireWalker::Turn(float Value)
{
	World->AddLook(Value * LookSpeed, 0.0);
}

void AWorldwireWalker::LookUp(float Value)
{
	World->AddLook(0.0, Value * LookSpeed);
}

void AWorldwireWalker::ShowProblem(FWorldwireProblem Problem)
{
	Message = Problem.Text + TEXT(" ") + Problem.Remedy;
}

void AWorldwireWalker::Draw(UCanvas* Canvas, APlayerController*)
{
	if (UTexture2D* Picture = World->GetTexture())
	{
		FCanvasTileItem Tile(FVector2D::ZeroVector, Picture->GetResource(), FVector2D(Canvas->SizeX, Canvas->SizeY), FLinearColor::White);
		Canvas->DrawItem(Tile);
	}
	const FWorldwireFigures Figures = World->GetFigures();
	const FString Numbers = FString::Printf(TEXT("%.0f frames/s   input to picture %.0f ms   ping %.1f ms   dropped %d"),
		Figures.FramesPerSecond, Figures.InputLatencyMs, Figures.RoundTripMs, Figures.DroppedFrames);
	Canvas->DrawText(GEngine->GetSmallFont(), Numbers, Margin, Margin);
	Canvas->DrawText(GEngine->GetSmallFont(), Message, Margin, 2 * Margin + GEngine->GetSmallFont()->GetMaxCharHeight());
}
