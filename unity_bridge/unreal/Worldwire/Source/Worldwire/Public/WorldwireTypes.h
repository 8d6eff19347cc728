#pragma once

#include "CoreMinimal.h"

#include "WorldwireTypes.generated.h"

/** Where the connection of a component stands. */
UENUM(BlueprintType)
enum class EWorldwireState : uint8
{
	Idle,
	Connecting,
	/** The server reads its world. */
	Loading,
	Ready,
	/** Waits before the next try: see the problem. */
	Waiting,
	/** For good, until Connect is called. */
	Failed
};

/** Why there is no connection or no room. */
UENUM(BlueprintType)
enum class EWorldwireCause : uint8
{
	None,
	NothingListens,
	Unreachable,
	BadAddress,
	NotWorldwire,
	Loading,
	WrongVersion,
	WrongKey,
	MissingEncryption,
	Busy,
	Stalled,
	Lost,
	Refused
};

/** The keys of a walker. */
UENUM(BlueprintType, meta = (Bitflags, UseEnumValuesAsMaskValuesInEditor = "true"))
enum class EWorldwireKey : uint8
{
	None = 0 UMETA(Hidden),
	Forward = 1,
	Back = 2,
	Left = 4,
	Right = 8,
	Jump = 16,
	Attack = 32
};
ENUM_CLASS_FLAGS(EWorldwireKey);

/** What is wrong, for a person who must do something about it. */
USTRUCT(BlueprintType)
struct FWorldwireProblem
{
	GENERATED_BODY()

	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	EWorldwireCause Cause = EWorldwireCause::None;

	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	FString Text;

	/** What to do; may be empty. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	FString Remedy;

	/** 0 to 1, while the server loads its world. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	float Progress = 0.0f;
};

/** Numbers for a HUD. */
USTRUCT(BlueprintType)
struct FWorldwireFigures
{
	GENERATED_BODY()

	/** Frames shown in a second. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	float FramesPerSecond = 0.0f;

	/** Quickest of the last pings, milliseconds. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	float RoundTripMs = 0.0f;

	/** From the server's send to here, milliseconds. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	float TransportMs = 0.0f;

	/** From an input to the first frame that shows it, milliseconds. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	float InputLatencyMs = 0.0f;

	/** Left out by the server, or thrown away here because they were old. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	int32 DroppedFrames = 0;

	/** Frames that wait to be shown. */
	UPROPERTY(BlueprintReadOnly, Category = "Worldwire")
	int32 WaitingFrames = 0;
};

/** What a player does from now on. */
struct FWorldwireInput
{
	EWorldwireKey Keys = EWorldwireKey::None;
	/** Turn since the last input, degrees, + right. */
	double YawDeg = 0.0;
	/** Degrees, + up. */
	double PitchDeg = 0.0;
	/** Camera relative to where the session began, Unreal axes and centimetres; wins over keys and look. */
	TOptional<FTransform> Pose;
};
