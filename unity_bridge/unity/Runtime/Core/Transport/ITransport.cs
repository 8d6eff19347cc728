namespace Worldwire
{
    /// <summary>
    /// One connection to a server, from the attempt to its end; it is not used again. Its own threads call the
    /// sink, never two at once for what arrives.
    /// </summary>
    public interface ITransport
    {
        /// <summary>Begins to connect, in the background.</summary>
        void Start(ITransportSink sink);

        /// <summary>
        /// Queues a message; any thread, never waits. The header is copied, the payload is not (null: none). False
        /// when the server takes nothing any more.
        /// </summary>
        bool Post(byte[] header, int count, byte[] payload);

        /// <summary>
        /// Sends what was posted, ends the threads and frees the socket, within about this time.
        /// </summary>
        void Close(int milliseconds);
    }

    /// <summary>Who listens to a transport.</summary>
    public interface ITransportSink
    {
        /// <summary>Both sides have shaken hands: messages may be posted.</summary>
        void Opened();

        /// <summary>Part 0 of a message; the bytes are valid during the call.</summary>
        void Header(byte[] data, int count);

        /// <summary>
        /// Where the payload of the message under way goes: a buffer that holds it, or null to drop it.
        /// </summary>
        byte[] PayloadBuffer(long length);

        /// <summary>The message under way is complete. Its payload has this length, -1 if it has none.</summary>
        void Complete(long payloadLength);

        /// <summary>The message under way, if any, ends here and was none; its buffer is free again.</summary>
        void Abandon();

        /// <summary>
        /// Comes about every TickMilliseconds while open, with the time when the last byte came; a problem ends the
        /// connection.
        /// </summary>
        WorldwireException Tick(long lastReceivedNs);

        /// <summary>The connection could not be made, or is over; nothing comes after it.</summary>
        void Closed(WorldwireException problem);
    }

    /// <summary>Numbers that all transports share.</summary>
    internal static class TransportTimes
    {
        internal const int TickMilliseconds = 100;
        internal const int ConnectMilliseconds = 4000;
        internal const int HandshakeMilliseconds = 4000;
        internal const int SendMilliseconds = 10000;

        /// <summary>Messages that wait for a server that does not read are no more than this many bytes.</summary>
        internal const int MaxWaitingBytes = 4 << 20;
    }
}
