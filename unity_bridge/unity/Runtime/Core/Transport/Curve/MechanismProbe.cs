#if WORLDWIRE_CURVE
using System.Net.Sockets;

namespace Worldwire
{
    /// <summary>
    /// Asks a server in plain ZMTP what it expects. libzmq does not tell a client with a key that the server has
    /// none: the server just hangs up.
    /// </summary>
    internal static class MechanismProbe
    {
        /// <summary>Whether the server talks without keys; false if it wants them or cannot be asked.</summary>
        internal static bool SaysNull(ServerAddress address)
        {
            var greeting = new byte[ZmtpFrames.GreetingBytes];
            try
            {
                using (var client = new TcpClient(address.Host, address.Port))
                {
                    client.ReceiveTimeout = TransportTimes.HandshakeMilliseconds;
                    client.Client.Send(ZmtpFrames.Greeting(), 0, ZmtpFrames.VersionedBytes, SocketFlags.None);
                    new SocketReader(client.Client).Read(greeting, 0, greeting.Length);
                }
            }
            catch (SocketException)
            {
                return false;
            }
            catch (EndOfConnectionException)
            {
                return false;
            }
            return ZmtpFrames.IsZmtp3(greeting) && ZmtpFrames.Mechanism(greeting) == ZmtpFrames.Null;
        }
    }
}
#endif
