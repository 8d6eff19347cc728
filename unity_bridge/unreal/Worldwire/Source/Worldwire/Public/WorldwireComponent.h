#pragma once

#include "Components/ActorComponent.h"
#include "CoreMinimal.h"
#include "WorldwireTypes.h"

#include "WorldwireComponent.generated.h"

class FWorldwireStaging;
class FWorldwireWorker;
class UTexture2D;

DECLARE_DYNAMIC_MULTICAST_DELEGATE_TwoParams(FWorldwireReadyEvent, UTexture2D*, Texture, bool, bResumed);
DECLARE_DYNAMIC_MULTICAST_DELEGATE_TwoParams(FWorldwireFrameEvent, int64, Index, FTransform, Camera);
DECLARE_DYNAMIC_MULTICAST_DELEGATE_OneParam(FWorldwireProblemEvent, FWorldwireProblem, Problem);
DECLARE_DYNAMIC_MULTICAST_DELEGATE_OneParam(FWorldwireStateEvent, FString, Name);

/**
 * Plays inside a generated world: connects to a worldwire server, sends keys, look or the pose of its actor, and shows
 * the frames that come back in a texture. All network work is done by a thread of its own.
 */
UCLASS(ClassGroup = (Worldwire), meta = (BlueprintSpawnableComponent))
class WORLDWIRE_API UWorldwireComponent : public UActorComponent
{
	GENERATED_BODY()

public:
	UWorldwireComponent();

	/** Where `worldwire serve` listens: tcp://HOST:PORT. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|Connection")
	FString Address = TEXT("tcp://127.0.0.1:5555");

	/** The server's public key (40 characters), empty for a server without keys. Needs libzmq, see the documentation. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|Connection")
	FString ServerKey;

	/** Whether to connect when play begins. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|Connection")
	bool bConnectOnBeginPlay = true;

	/** What the world is like; empty for the seed image's own words. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|World", meta = (MultiLine = true))
	FString Prompt;

	/** Name of a seed image of the server, empty for none. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|World")
	FString SeedImage;

	/** One of the views of the world, such as first or third; empty for the seed image's own. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|World")
	FString View;

	/** Of all randomness. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|World", meta = (ClampMin = "0"))
	int64 Seed = 0;

	/** Frames that may be under way; 0 for one step and a little more. Fewer react sooner, more play smoother. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|World", meta = (ClampMin = "0", ClampMax = "4096"))
	int32 Window = 0;

	/** Sends where the owner is, relative to where it was when the world began; keys and look count for nothing then. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|Input")
	bool bSendPose = false;

	/** Centimetres of the level that are a centimetre of the generated world. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire|Input", meta = (ClampMin = "0.001"))
	double PoseScale = 1.0;

	/** The world begins, or goes on after a lost connection. The texture is nullptr before the very first frame. */
	UPROPERTY(BlueprintAssignable, Category = "Worldwire")
	FWorldwireReadyEvent OnReady;

	/** A frame is shown; Camera is its pose in Unreal axes (cm), relative to where the world began. */
	UPROPERTY(BlueprintAssignable, Category = "Worldwire")
	FWorldwireFrameEvent OnFrame;

	/** Something is wrong that was not wrong before. */
	UPROPERTY(BlueprintAssignable, Category = "Worldwire")
	FWorldwireProblemEvent OnProblem;

	/** KeepState is done; the name is what RestoreState takes. */
	UPROPERTY(BlueprintAssignable, Category = "Worldwire")
	FWorldwireStateEvent OnStateKept;

	UFUNCTION(BlueprintCallable, Category = "Worldwire|Connection")
	void Connect();

	/** Says goodbye: the server frees the session. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|Connection")
	void Disconnect();

	/** Begins the world anew with the prompt, seed image, view and seed of this component. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|World")
	void ResetWorld();

	/** The same with a picture of one's own, of the size of the world; row by row from the top. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|World")
	void ResetWorldFromPixels(const TArray<FColor>& Pixels, int32 Width, int32 Height);

	/** What the world is told from its next step on; everything else goes on. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|World")
	void SetPrompt(const FString& Text);

	/** Keeps the state of the world on the server. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|World")
	void KeepState();

	UFUNCTION(BlueprintCallable, Category = "Worldwire|World")
	void RestoreState(const FString& Name);

	/** Holds or lets go a key. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|Input")
	void SetKey(EWorldwireKey Key, bool bHeld);

	/** Turns the camera, degrees; yaw + right, pitch + up. */
	UFUNCTION(BlueprintCallable, Category = "Worldwire|Input")
	void AddLook(double YawDeg, double PitchDeg);

	/** The newest frame; nullptr before the first. BGRA, never made anew while the world keeps its size. */
	UFUNCTION(BlueprintPure, Category = "Worldwire")
	UTexture2D* GetTexture() const { return Texture; }

	UFUNCTION(BlueprintPure, Category = "Worldwire")
	EWorldwireState GetState() const;

	UFUNCTION(BlueprintPure, Category = "Worldwire")
	FWorldwireFigures GetFigures() const;

	virtual void BeginPlay() override;
	virtual void EndPlay(const EEndPlayReason::Type Reason) override;
	virtual void TickComponent(float DeltaTime, ELevelTick TickType, FActorComponentTickFunction* ThisTickFunction) override;

private:
	void TellEvents();
	void SendInput();
	void ShowFrame();
	void MakeTexture(int32 Width, int32 Height);
	void Upload(const uint8* Pixels, int32 Width, int32 Height);

	UPROPERTY(Transient)
	TObjectPtr<UTexture2D> Texture;

	TSharedPtr<FWorldwireWorker> Worker;
	TSharedPtr<FWorldwireStaging, ESPMode::ThreadSafe> Staging;
	FTransform Origin = FTransform::Identity;
	FTransform SentPose = FTransform::Identity;
	FWorldwireInput Held;
	EWorldwireKey SentKeys = EWorldwireKey::None;
	bool bInputIsStale = false;
};
