#pragma once

#include "CoreMinimal.h"
#include "GameFramework/Pawn.h"
#include "WorldwireTypes.h"

#include "WorldwireWalker.generated.h"

class UInputComponent;
class UWorldwireComponent;

/**
 * The sample: a pawn that walks with W A S D and looks with the mouse, and paints the world over the whole screen with
 * its numbers above. Put it into an empty level, set Auto Possess Player to Player 0, press Play.
 */
UCLASS()
class WORLDWIRE_API AWorldwireWalker : public APawn
{
	GENERATED_BODY()

public:
	AWorldwireWalker();

	UPROPERTY(VisibleAnywhere, BlueprintReadOnly, Category = "Worldwire")
	TObjectPtr<UWorldwireComponent> World;

	/** Degrees of the world for a unit of the mouse. */
	UPROPERTY(EditAnywhere, BlueprintReadWrite, Category = "Worldwire")
	float LookSpeed = 1.5f;

	virtual void BeginPlay() override;
	virtual void EndPlay(const EEndPlayReason::Type Reason) override;
	virtual void SetupPlayerInputComponent(UInputComponent* Input) override;

private:
	template <EWorldwireKey Key>
	void Press();
	template <EWorldwireKey Key>
	void Release();
	void Turn(float Value);
	void LookUp(float Value);
	void Draw(class UCanvas* Canvas, class APlayerController* Controller);

	UFUNCTION()
	void ShowProblem(FWorldwireProblem Problem);

	FDelegateHandle DrawHandle;
	FString Message;
};
