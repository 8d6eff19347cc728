// The core's TCP, over the engine's sockets: so it works wherever the engine does.
#include "CoreMinimal.h"
#include "IPAddress.h"
#include "SocketSubsystem.h"
#include "Sockets.h"

#include "worldwire.hpp"

namespace
{

constexpr int32 ReceiveBufferBytes = 4 << 20;

ISocketSubsystem& Subsystem()
{
	return *ISocketSubsystem::Get(PLATFORM_SOCKETSUBSYSTEM);
}

class FWorldwireSocket final : public worldwire::Socket
{
public:
	virtual ~FWorldwireSocket() override { close(); }

	virtual worldwire::Result connect(const char* Host, std::uint16_t Port) override
	{
		close();
		const FAddressInfoResult Found = Subsystem().GetAddressInfo(UTF8_TO_TCHAR(Host), nullptr,
			EAddressInfoFlags::Default, NAME_None, ESocketType::SOCKTYPE_Streaming);
		for (const FAddressInfoResultData& Entry : Found.Results)
		{
			Addresses.Add(Entry.Address);
			Addresses.Last()->SetPort(Port);
		}
		return TryNext() ? worldwire::Result::ok : worldwire::Result::unreachable;
	}

	virtual worldwire::Result progress() override
	{
		if (Socket == nullptr)
		{
			return worldwire::Result::unreachable;
		}
		const ESocketConnectionState State = Socket->GetConnectionState();
		if (State == SCS_Connected && Socket->Wait(ESocketWaitConditions::WaitForWrite, FTimespan::Zero()))
		{
			return worldwire::Result::ok;
		}
		if (State != SCS_ConnectionError)
		{
			return worldwire::Result::would_block;
		}
		return TryNext() ? worldwire::Result::would_block : worldwire::Result::nothing_listens;
	}

	virtual worldwire::Result send(const std::uint8_t* Data, std::size_t Size, std::size_t* Moved) override
	{
		int32 Sent = 0;
		const bool bFine = Socket->Send(Data, Chunk(Size), Sent);
		*Moved = Sent > 0 ? static_cast<std::size_t>(Sent) : 0;
		return *Moved > 0 ? worldwire::Result::ok : Failure(bFine);
	}

	virtual worldwire::Result receive(std::uint8_t* Data, std::size_t Size, std::size_t* Moved) override
	{
		int32 Read = 0;
		bool bFine = Socket->Recv(Data, Chunk(Size), Read);
		// Nothing read without an error: either nothing is there, or the other side has gone. Only a second look
		// at a readable socket tells.
		if (bFine && Read == 0 && Socket->Wait(ESocketWaitConditions::WaitForRead, FTimespan::Zero()))
		{
			bFine = Socket->Recv(Data, Chunk(Size), Read);
			if (bFine && Read == 0)
			{
				*Moved = 0;
				return worldwire::Result::closed;
			}
		}
		*Moved = Read > 0 ? static_cast<std::size_t>(Read) : 0;
		return *Moved > 0 ? worldwire::Result::ok : Failure(bFine);
	}

	virtual void wait(bool bForWriting, int TimeoutMs) override
	{
		if (Socket != nullptr)
		{
			Socket->Wait(bForWriting ? ESocketWaitConditions::WaitForReadOrWrite : ESocketWaitConditions::WaitForRead,
				FTimespan::FromMilliseconds(TimeoutMs));
		}
	}

	virtual void close() override
	{
		Drop();
		Addresses.Reset();
		Next = 0;
	}

private:
	static int32 Chunk(std::size_t Size)
	{
		return static_cast<int32>(Size < MAX_int32 ? Size : MAX_int32);
	}

	static worldwire::Result Failure(bool bFine)
	{
		const ESocketErrors Error = Subsystem().GetLastErrorCode();
		const bool bLater = bFine || Error == SE_EWOULDBLOCK || Error == SE_TRY_AGAIN || Error == SE_EINTR;
		return bLater ? worldwire::Result::would_block : worldwire::Result::closed;
	}

	void Drop()
	{
		if (Socket != nullptr)
		{
			Socket->Close();
			Subsystem().DestroySocket(Socket);
			Socket = nullptr;
		}
	}

	// Begins with the next address of the name: localhost is often ::1 first, where a server need not listen.
	bool TryNext()
	{
		while (Next < Addresses.Num())
		{
			Drop();
			const TSharedRef<FInternetAddr> Address = Addresses[Next++];
			Socket = Subsystem().CreateSocket(NAME_Stream, TEXT("Worldwire"), Address->GetProtocolType());
			if (Socket == nullptr)
			{
				continue;
			}
			int32 Granted = 0;
			Socket->SetNonBlocking(true);
			Socket->SetNoDelay(true);
			Socket->SetReceiveBufferSize(ReceiveBufferBytes, Granted);
			if (Socket->Connect(*Address))
			{
				return true;
			}
		}
		Drop();
		return false;
	}

	FSocket* Socket = nullptr;
	TArray<TSharedRef<FInternetAddr>> Addresses;
	int32 Next = 0;
};

} // namespace

std::unique_ptr<worldwire::Socket> worldwire::make_tcp_socket()
{
	return std::make_unique<FWorldwireSocket>();
}
