using System;
using System.Text;

namespace Worldwire
{
    /// <summary>The bytes of ZMTP 3.1 with the NULL mechanism (specification, section 1.3).</summary>
    internal static class ZmtpFrames
    {
        internal const byte More = 1;
        internal const byte Long = 2;
        internal const byte Command = 4;
        internal const int GreetingBytes = 64;

        /// <summary>The part of a greeting that tells the version.</summary>
        internal const int VersionedBytes = 12;

        /// <summary>The mechanism without keys.</summary>
        internal const string Null = "NULL";

        private const byte SignatureFirst = 0xff;
        private const byte SignatureLast = 0x7f;
        private const int SignatureBytes = 10;
        private const int VersionMajor = 3;
        private const int VersionMinor = 1;
        private const int MechanismOffset = 12;
        private const int MechanismBytes = 20;
        private const int LongestShortBody = 255;

        private static readonly byte[] ReadyName = Name("READY");
        private static readonly byte[] ErrorName = Name("ERROR");
        private static readonly byte[] PingName = Name("PING");
        private static readonly byte[] PongName = Name("PONG");

        internal static byte[] Greeting()
        {
            var greeting = new byte[GreetingBytes];
            greeting[0] = SignatureFirst;
            greeting[SignatureBytes - 1] = SignatureLast;
            greeting[SignatureBytes] = VersionMajor;
            greeting[SignatureBytes + 1] = VersionMinor;
            Encoding.ASCII.GetBytes(Null, 0, Null.Length, greeting, MechanismOffset);
            return greeting;
        }

        /// <summary>Whether these are the first bytes of a ZMTP 3 peer.</summary>
        internal static bool IsZmtp3(byte[] greeting) =>
            greeting[0] == SignatureFirst
            && greeting[SignatureBytes - 1] == SignatureLast
            && greeting[SignatureBytes] >= VersionMajor;

        /// <summary>The name of the mechanism in a greeting: NULL, CURVE, PLAIN.</summary>
        internal static string Mechanism(byte[] greeting) =>
            Encoding.ASCII.GetString(greeting, MechanismOffset, MechanismBytes).TrimEnd('\0');

        /// <summary>The command READY of a DEALER, as a whole frame.</summary>
        internal static byte[] Ready()
        {
            var frame = new Outbox.Batch();
            var body = new byte[64];
            int count = Append(body, 0, ReadyName);
            count = Append(body, count, Name("Socket-Type"));
            byte[] value = Encoding.ASCII.GetBytes("DEALER");
            body[count + 3] = (byte)value.Length;
            count = Append(body, count + 4, value);
            frame.Append(Command, body, count);
            var bytes = new byte[frame.Count];
            Buffer.BlockCopy(frame.Data, 0, bytes, 0, bytes.Length);
            return bytes;
        }

        internal static bool IsReady(byte[] body, int count) => StartsWith(body, count, ReadyName);

        internal static bool IsError(byte[] body, int count) => StartsWith(body, count, ErrorName);

        internal static bool IsPing(byte[] body, int count) => StartsWith(body, count, PingName);

        /// <summary>The reason that the command ERROR names.</summary>
        internal static string ErrorReason(byte[] body, int count)
        {
            int start = ErrorName.Length + 1;
            return start < count ? Encoding.ASCII.GetString(body, start, count - start) : "";
        }

        /// <summary>
        /// Turns PING (time to live, context) into PONG (context), in place; returns the new length.
        /// </summary>
        internal static int PongOf(byte[] ping, int count)
        {
            const int timeToLiveBytes = 2;
            int context = Math.Max(0, count - PingName.Length - timeToLiveBytes);
            Buffer.BlockCopy(PongName, 0, ping, 0, PongName.Length);
            Buffer.BlockCopy(ping, PingName.Length + timeToLiveBytes, ping, PongName.Length, context);
            return PongName.Length + context;
        }

        /// <summary>Flags and length of a frame; returns how many bytes they take.</summary>
        internal static int WriteHead(byte[] data, int offset, byte flags, long length)
        {
            if (length <= LongestShortBody)
            {
                data[offset] = flags;
                data[offset + 1] = (byte)length;
                return 2;
            }
            data[offset] = (byte)(flags | Long);
            for (int i = 0; i < 8; i++) data[offset + 8 - i] = (byte)(length >> (8 * i));
            return 9;
        }

        private static byte[] Name(string text)
        {
            var name = new byte[text.Length + 1];
            name[0] = (byte)text.Length;
            Encoding.ASCII.GetBytes(text, 0, text.Length, name, 1);
            return name;
        }

        private static int Append(byte[] data, int offset, byte[] part)
        {
            Buffer.BlockCopy(part, 0, data, offset, part.Length);
            return offset + part.Length;
        }

        private static bool StartsWith(byte[] body, int count, byte[] name)
        {
            if (count < name.Length) return false;
            for (int i = 0; i < name.Length; i++)
            {
                if (body[i] != name[i]) return false;
            }
            return true;
        }
    }
}
