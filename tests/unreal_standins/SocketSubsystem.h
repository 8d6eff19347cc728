#pragma once
#include "Sockets.h"
#define PLATFORM_SOCKETSUBSYSTEM NAME_None
enum ESocketErrors { SE_NO_ERROR, SE_EWOULDBLOCK, SE_TRY_AGAIN, SE_EINTR };
enum class EAddressInfoFlags { Default };
struct FAddressInfoResultData
{
	TSharedRef<FInternetAddr> Address;
};
struct FAddressInfoResult
{
	ESocketErrors ReturnCode = SE_NO_ERROR;
	TArray<FAddressInfoResultData> Results;
};
class ISocketSubsystem
{
public:
	virtual ~ISocketSubsystem() = default;
	static ISocketSubsystem* Get(const FName&);
	virtual FSocket* CreateSocket(const FName&, const FString&, const FName&) = 0;
	virtual void DestroySocket(FSocket*) = 0;
	virtual FAddressInfoResult GetAddressInfo(const TCHAR*, const TCHAR* = nullptr, EAddressInfoFlags = EAddressInfoFlags::Default,
		const FName = NAME_None, ESocketType = ESocketType::SOCKTYPE_Unknown) = 0;
	virtual ESocketErrors GetLastErrorCode() = 0;
};
