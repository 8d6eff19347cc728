using System.Globalization;

namespace Worldwire
{
    /// <summary>tcp://HOST:PORT, taken apart.</summary>
    public sealed class ServerAddress
    {
        private const string Scheme = "tcp://";

        public readonly string Host;
        public readonly int Port;

        private ServerAddress(string host, int port)
        {
            Host = host;
            Port = port;
        }

        /// <summary>Host and port as people write them.</summary>
        public string Short => (Host.IndexOf(':') >= 0 ? "[" + Host + "]" : Host) + ":" + Port;

        public override string ToString() => Scheme + Short;

        /// <summary>
        /// Takes tcp://HOST:PORT and HOST:PORT; WorldwireException (bad_config) for anything else.
        /// </summary>
        public static ServerAddress Parse(string text)
        {
            string rest = (text ?? "").Trim();
            if (rest.StartsWith(Scheme)) rest = rest.Substring(Scheme.Length);
            int colon = rest.LastIndexOf(':');
            int port;
            bool fits = colon > 0
                && int.TryParse(rest.Substring(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port)
                && port > 0 && port <= ushort.MaxValue;
            if (!fits)
            {
                throw new WorldwireException(
                    ErrorCode.BadConfig, "this is no address", Scheme + "HOST:PORT", text ?? "nothing",
                    "The default is " + Protocol.DefaultAddress + ".");
            }
            string host = rest.Substring(0, colon).Trim('[', ']');
            return new ServerAddress(host, int.Parse(rest.Substring(colon + 1), CultureInfo.InvariantCulture));
        }
    }
}
