// Stand-ins for the parts of Unreal Engine that the plugin names: enough to compile it without an engine, and nothing
// that works. Signatures follow the public documentation of Unreal Engine 5.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using uint8 = std::uint8_t;
using uint32 = std::uint32_t;
using int32 = std::int32_t;
using int64 = long long;
using TCHAR = char16_t;
constexpr int32 MAX_int32 = 0x7fffffff;

// Macros that the engine brings and that a library must bear.
#define check(Expression) static_assert(sizeof(#Expression) == 0, "the engine's macro")
#define verify(Expression) check(Expression)
#define ensure(Expression) check(Expression)
#define TEXT(Literal) u##Literal
#define PI (3.1415926535897932f)

#define UCLASS(...)
#define USTRUCT(...)
#define UENUM(...)
#define UMETA(...)
#define UPROPERTY(...)
#define UFUNCTION(...)
#define GENERATED_BODY(...)
#define WORLDWIRE_API
#define ENUM_CLASS_FLAGS(Enum)                                                                                   \
	inline Enum operator|(Enum A, Enum B) { return static_cast<Enum>(static_cast<uint8>(A) | static_cast<uint8>(B)); } \
	inline Enum operator&(Enum A, Enum B) { return static_cast<Enum>(static_cast<uint8>(A) & static_cast<uint8>(B)); } \
	inline Enum operator~(Enum A) { return static_cast<Enum>(~static_cast<uint8>(A)); }

class FString
{
public:
	FString() = default;
	FString(const TCHAR* Value) : Text(Value) {}
	const TCHAR* operator*() const { return Text.c_str(); }
	FString operator+(const FString& Other) const { return FString((Text + Other.Text).c_str()); }
	FString operator+(const TCHAR* Other) const { return FString((Text + Other).c_str()); }
	template <class... Values>
	static FString Printf(const TCHAR* Format, Values...) { return FString(Format); }

private:
	std::u16string Text;
};

inline std::string StandInNarrow(const TCHAR* Text)
{
	const std::u16string_view View(Text);
	return std::string(View.begin(), View.end());
}
inline std::u16string StandInWide(const char* Text)
{
	const std::string_view View(Text);
	return std::u16string(View.begin(), View.end());
}
#define TCHAR_TO_UTF8(Text) StandInNarrow(Text).c_str()
#define UTF8_TO_TCHAR(Text) StandInWide(Text).c_str()

struct FName {};
constexpr FName NAME_None, NAME_Stream;

template <class T>
class TArray
{
public:
	int32 Num() const { return static_cast<int32>(Items.size()); }
	void Add(T Item) { Items.push_back(std::move(Item)); }
	void Reset() { Items.clear(); }
	void Reserve(int32 Count) { Items.reserve(static_cast<std::size_t>(Count)); }
	void SetNumUninitialized(int32 Count) { Items.resize(static_cast<std::size_t>(Count)); }
	T& Last() { return Items.back(); }
	T* GetData() { return Items.data(); }
	const T* GetData() const { return Items.data(); }
	T& operator[](int32 Index) { return Items[static_cast<std::size_t>(Index)]; }
	auto begin() const { return Items.begin(); }
	auto end() const { return Items.end(); }

private:
	std::vector<T> Items;
};

template <class T>
class TOptional
{
public:
	TOptional() = default;
	TOptional(const T& Item) : Value(Item) {}
	bool IsSet() const { return Value.has_value(); }
	void Reset() { Value.reset(); }
	const T& Get(const T& Otherwise) const { return Value ? *Value : Otherwise; }
	const T* operator->() const { return &*Value; }

private:
	std::optional<T> Value;
};

enum class ESPMode { NotThreadSafe, ThreadSafe };
template <class T, ESPMode Mode = ESPMode::ThreadSafe>
class TSharedPtr
{
public:
	TSharedPtr() = default;
	TSharedPtr(std::shared_ptr<T> Other) : Pointer(std::move(Other)) {}
	bool IsValid() const { return Pointer != nullptr; }
	void Reset() { Pointer.reset(); }
	T* operator->() const { return Pointer.get(); }

private:
	std::shared_ptr<T> Pointer;
};
template <class T>
class TSharedRef
{
public:
	T* operator->() const { return Pointer.get(); }
	T& operator*() const { return *Pointer; }

private:
	std::shared_ptr<T> Pointer;
};
template <class T, ESPMode Mode = ESPMode::ThreadSafe, class... Values>
TSharedPtr<T, Mode> MakeShared(Values&&... Arguments)
{
	return TSharedPtr<T, Mode>(std::make_shared<T>(std::forward<Values>(Arguments)...));
}
template <class T>
class TUniquePtr
{
public:
	void Reset(T* Item) { Pointer.reset(Item); }
	bool IsValid() const { return Pointer != nullptr; }
	T* operator->() const { return Pointer.get(); }

private:
	std::unique_ptr<T> Pointer;
};
template <class T>
using TObjectPtr = T*;
template <class T>
T&& MoveTemp(T& Item) { return static_cast<T&&>(Item); }
template <class Signature>
using TFunction = std::function<Signature>;

struct FVector
{
	double X = 0, Y = 0, Z = 0;
	FVector() = default;
	FVector(double InX, double InY, double InZ) : X(InX), Y(InY), Z(InZ) {}
	FVector operator/(double By) const { return {X / By, Y / By, Z / By}; }
	bool Equals(const FVector&, double) const { return true; }
};
struct FVector2D
{
	double X, Y;
	FVector2D(double InX, double InY) : X(InX), Y(InY) {}
	static const FVector2D ZeroVector;
};
struct FQuat
{
	double X = 0, Y = 0, Z = 0, W = 1;
	FQuat() = default;
	FQuat(double InX, double InY, double InZ, double InW) : X(InX), Y(InY), Z(InZ), W(InW) {}
	double AngularDistance(const FQuat&) const { return 0; }
};
class FTransform
{
public:
	static const FTransform Identity;
	FTransform() = default;
	FTransform(const FQuat& Rotation, const FVector& Location) : Q(Rotation), P(Location) {}
	FVector GetLocation() const { return P; }
	FQuat GetRotation() const { return Q; }
	void SetLocation(const FVector& Location) { P = Location; }
	FTransform GetRelativeTransform(const FTransform&) const { return *this; }

private:
	FQuat Q;
	FVector P;
};
struct FColor
{
	uint8 B, G, R, A;
};
struct FLinearColor
{
	static const FLinearColor White;
};
struct FMath
{
	static double DegreesToRadians(double Degrees) { return Degrees; }
};
struct FMemory
{
	static void Memcpy(void*, const void*, std::size_t) {}
};
struct FTimespan
{
	static FTimespan Zero() { return {}; }
	static FTimespan FromMilliseconds(double) { return {}; }
};
struct FCriticalSection
{
	std::mutex Mutex;
};
struct FDelegateHandle {};

#define DECLARE_LOG_CATEGORY_EXTERN(Name, ...) \
	struct FLogCategory##Name {};              \
	extern FLogCategory##Name Name
#define DEFINE_LOG_CATEGORY(Name) FLogCategory##Name Name
template <class Category, class... Values>
void StandInLog(const Category&, const TCHAR*, const Values&...) {}
#define UE_LOG(Category, Verbosity, ...) StandInLog(Category, __VA_ARGS__)

template <class... Values>
struct TStandInMulticast
{
	template <class T>
	void AddDynamic(T*, void (T::*)(Values...)) {}
	template <class T>
	void RemoveDynamic(T*, void (T::*)(Values...)) {}
	void Broadcast(Values...) {}
};
#define DECLARE_DYNAMIC_MULTICAST_DELEGATE_OneParam(Name, T1, N1) using Name = TStandInMulticast<T1>
#define DECLARE_DYNAMIC_MULTICAST_DELEGATE_TwoParams(Name, T1, N1, T2, N2) using Name = TStandInMulticast<T1, T2>
