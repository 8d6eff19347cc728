#pragma once
#include "IPAddress.h"
enum ESocketConnectionState { SCS_NotConnected, SCS_Connected, SCS_ConnectionError };
enum class ESocketType { SOCKTYPE_Unknown, SOCKTYPE_Datagram, SOCKTYPE_Streaming };
namespace ESocketWaitConditions { enum Type { WaitForRead, WaitForWrite, WaitForReadOrWrite }; }
namespace ESocketReceiveFlags { enum Type { None }; }
class FSocket
{
public:
	virtual ~FSocket() = default;
	virtual bool Close() = 0;
	virtual bool Connect(const FInternetAddr&) = 0;
	virtual bool Send(const uint8*, int32, int32&) = 0;
	virtual bool Recv(uint8*, int32, int32&, ESocketReceiveFlags::Type = ESocketReceiveFlags::None) = 0;
	virtual bool Wait(ESocketWaitConditions::Type, FTimespan) = 0;
	virtual ESocketConnectionState GetConnectionState() = 0;
	virtual bool SetNonBlocking(bool = true) = 0;
	virtual bool SetNoDelay(bool = true) = 0;
	virtual bool SetReceiveBufferSize(int32, int32&) = 0;
};
