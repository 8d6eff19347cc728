namespace Worldwire
{
    /// <summary>What can go wrong below the messages, in words that say what to do.</summary>
    internal static class TransportProblems
    {
        internal const string StartIt = "Start it with `worldwire serve`.";

        internal static WorldwireException NothingListens(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost, "No server at " + address.Short, remedy: StartIt);

        internal static WorldwireException UnknownHost(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost, "The host " + address.Host + " is unknown", remedy: "Check the address.");

        internal static WorldwireException NotZeroMq(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost,
            "Something listens at " + address.Short + " but is no worldwire server",
            "ZMTP 3 with a ROUTER socket", remedy: "Check the port.");

        internal static WorldwireException HandshakeTimeout(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost,
            "Something listens at " + address.Short + " but does not answer",
            remedy: "Check the port, and the server's log.");

        internal static WorldwireException WentAway(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost, "The server at " + address.Short + " went away", remedy: StartIt);

        internal static WorldwireException Broken(ServerAddress address, string how) => new WorldwireException(
            ErrorCode.ConnectionLost, "The connection to " + address.Short + " broke", got: how);

        internal static WorldwireException TakesNothing(ServerAddress address) => new WorldwireException(
            ErrorCode.ConnectionLost, "The server at " + address.Short + " takes no more messages",
            remedy: "Look at the server's log.");

        internal static WorldwireException NoAnswer(string address) => new WorldwireException(
            ErrorCode.ConnectionLost, "The server at " + address + " does not answer",
            remedy: "Look at the server's log.");

        internal static WorldwireException KeyMissing(ServerAddress address) => new WorldwireException(
            ErrorCode.WrongKey, "The server at " + address.Short + " wants keys and none is given",
            "the server's public key (40 characters)", "no key",
            "Ask who runs it for the public key file. Encryption needs libzmq: see the page on encryption.");

        internal static WorldwireException KeyWrong(ServerAddress address) => new WorldwireException(
            ErrorCode.WrongKey, "The server at " + address.Short + " refused the key",
            "the public key of this server, and a client key that it lists if it lists any",
            remedy: "Compare the key with the server's public key file.");

        internal static WorldwireException KeyNotWanted(ServerAddress address) => new WorldwireException(
            ErrorCode.WrongKey, "A key is given, but the server at " + address.Short + " has none",
            remedy: "Leave the key empty, or start the server with --key.");

        internal static WorldwireException KeyMalformed(string got) => new WorldwireException(
            ErrorCode.WrongKey, "This is no key", "40 characters of Z85", got,
            "The public key stands in the file that `worldwire serve --new-key` wrote.");
    }
}
