#if WORLDWIRE_CURVE
using System;
using System.Runtime.InteropServices;

namespace Worldwire
{
    /// <summary>
    /// An array of zmq_pollitem_t that waits for something to read; its layout depends on the platform.
    /// </summary>
    internal sealed class PollItems : IDisposable
    {
        private const short PollIn = 1;

        private readonly int _count;
        private readonly int _itemBytes;
        private readonly int _eventsOffset;
        private readonly IntPtr _memory;

        internal PollItems(params IntPtr[] sockets)
        {
            bool wideDescriptor = Environment.OSVersion.Platform == PlatformID.Win32NT && IntPtr.Size == 8;
            _count = sockets.Length;
            _eventsOffset = IntPtr.Size + (wideDescriptor ? 8 : 4);
            _itemBytes = (_eventsOffset + 4 + IntPtr.Size - 1) / IntPtr.Size * IntPtr.Size;
            _memory = Marshal.AllocHGlobal(_count * _itemBytes);
            for (int i = 0; i < _count * _itemBytes; i++) Marshal.WriteByte(_memory, i, 0);
            for (int i = 0; i < _count; i++)
            {
                Marshal.WriteIntPtr(_memory, i * _itemBytes, sockets[i]);
                Marshal.WriteInt16(_memory, i * _itemBytes + _eventsOffset, PollIn);
            }
        }

        internal void Wait(int milliseconds) => LibZmq.zmq_poll(_memory, _count, (IntPtr)milliseconds);

        internal bool IsReady(int index) =>
            (Marshal.ReadInt16(_memory, index * _itemBytes + _eventsOffset + 2) & PollIn) != 0;

        public void Dispose() => Marshal.FreeHGlobal(_memory);
    }
}
#endif
