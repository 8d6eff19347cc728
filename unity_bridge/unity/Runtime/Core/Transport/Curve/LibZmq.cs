#if WORLDWIRE_CURVE
using System;
using System.Runtime.InteropServices;
using System.Text;

namespace Worldwire
{
    /// <summary>The few functions of libzmq (4.3 or later) that an encrypted DEALER needs.</summary>
    internal static class LibZmq
    {
#if UNITY_IOS && !UNITY_EDITOR
        private const string Library = "__Internal";
#else
        private const string Library = "libzmq";
#endif
        internal const int Pair = 0;
        internal const int Dealer = 5;

        internal const int OptionLinger = 17;
        internal const int OptionReconnectInterval = 18;
        internal const int OptionCurvePublicKey = 48;
        internal const int OptionCurveSecretKey = 49;
        internal const int OptionCurveServerKey = 50;

        internal const int DontWait = 1;
        internal const int SendMore = 2;

        internal const int EventConnected = 0x0001;
        internal const int EventClosed = 0x0080;
        internal const int EventDisconnected = 0x0200;
        internal const int EventHandshakeFailedNoDetail = 0x0800;
        internal const int EventHandshakeSucceeded = 0x1000;
        internal const int EventHandshakeFailedProtocol = 0x2000;
        internal const int EventHandshakeFailedAuth = 0x4000;
        internal const int AllEvents = 0xffff;
        internal const int MechanismMismatch = 0x11000001;

        /// <summary>Bytes of a zmq_msg_t.</summary>
        internal const int MessageBytes = 64;

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern IntPtr zmq_ctx_new();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_ctx_term(IntPtr context);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern IntPtr zmq_socket(IntPtr context, int type);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_close(IntPtr socket);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_setsockopt(IntPtr socket, int option, byte[] value, UIntPtr length);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_setsockopt(IntPtr socket, int option, ref int value, UIntPtr length);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_bind(IntPtr socket, byte[] address);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_connect(IntPtr socket, byte[] address);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_socket_monitor(IntPtr socket, byte[] address, int events);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_send(IntPtr socket, byte[] data, UIntPtr length, int flags);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_poll(IntPtr items, int count, IntPtr milliseconds);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_msg_init(IntPtr message);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_msg_recv(IntPtr message, IntPtr socket, int flags);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern IntPtr zmq_msg_data(IntPtr message);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern UIntPtr zmq_msg_size(IntPtr message);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_msg_more(IntPtr message);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int zmq_msg_close(IntPtr message);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern int zmq_curve_keypair(byte[] publicKey, byte[] secretKey);

        internal static void Set(IntPtr socket, int option, int value) =>
            Check(zmq_setsockopt(socket, option, ref value, (UIntPtr)sizeof(int)), "zmq_setsockopt " + option);

        internal static void Set(IntPtr socket, int option, string value)
        {
            byte[] bytes = Text(value);
            Check(zmq_setsockopt(socket, option, bytes, (UIntPtr)bytes.Length), "zmq_setsockopt " + option);
        }

        internal static void Bind(IntPtr socket, string address) =>
            Check(zmq_bind(socket, Text(address)), "zmq_bind");

        internal static void Connect(IntPtr socket, string address) =>
            Check(zmq_connect(socket, Text(address)), "zmq_connect to " + address);

        internal static void Monitor(IntPtr socket, string address) =>
            Check(zmq_socket_monitor(socket, Text(address), AllEvents), "zmq_socket_monitor");

        internal static bool Send(IntPtr socket, byte[] data, int count, int flags) =>
            zmq_send(socket, data, (UIntPtr)count, flags) >= 0;

        /// <summary>A fresh key pair, each half 40 characters of Z85.</summary>
        internal static void KeyPair(out string publicKey, out string secretKey)
        {
            const int keyBytes = 41;
            var publicBytes = new byte[keyBytes];
            var secretBytes = new byte[keyBytes];
            Check(zmq_curve_keypair(publicBytes, secretBytes), "zmq_curve_keypair (is libzmq built with CURVE?)");
            publicKey = Encoding.ASCII.GetString(publicBytes, 0, CurveKeys.Characters);
            secretKey = Encoding.ASCII.GetString(secretBytes, 0, CurveKeys.Characters);
        }

        private static void Check(int result, string what)
        {
            if (result >= 0) return;
            throw new WorldwireException(ErrorCode.Error, "libzmq refused " + what);
        }

        private static byte[] Text(string text) => Encoding.ASCII.GetBytes(text + "\0");
    }
}
#endif
