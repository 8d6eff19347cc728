namespace Worldwire
{
    /// <summary>How a connection, or a world that is played over one, is doing.</summary>
    public enum WorldState
    {
        /// <summary>Nobody asked for a connection, or it was closed.</summary>
        Closed,

        /// <summary>On the way.</summary>
        Connecting,

        /// <summary>The server is there and reads its world.</summary>
        Loading,

        /// <summary>The server said welcome.</summary>
        Ready,

        /// <summary>A session is being opened and its first picture made.</summary>
        Opening,

        /// <summary>Frames come.</summary>
        Playing,

        /// <summary>The server has no room for another session.</summary>
        Busy,

        /// <summary>Nothing, or nothing that speaks ZeroMQ, listens at the address.</summary>
        NothingListens,

        /// <summary>The other side speaks another major version of the protocol.</summary>
        WrongVersion,

        /// <summary>A key is missing, wrong, or not wanted.</summary>
        WrongKey,

        /// <summary>The server is connected but silent.</summary>
        Stalled,

        /// <summary>The connection broke.</summary>
        Lost,

        /// <summary>The server refused what it was asked for.</summary>
        Refused,
    }
}
