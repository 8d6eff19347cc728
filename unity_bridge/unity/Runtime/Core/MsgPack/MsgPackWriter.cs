using System;
using System.Text;

namespace Worldwire
{
    /// <summary>
    /// Writes msgpack into one buffer that is used again and again: after the largest message no allocation.
    /// Whole numbers take their shortest form, reals are float 64.
    /// </summary>
    public sealed class MsgPackWriter
    {
        private const int InitialBytes = 512;
        private const int FixMapLimit = 16;

        private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);

        private byte[] _data = new byte[InitialBytes];
        private int _count;
        private int _entries;

        /// <summary>The bytes written so far are the first Count of these; valid until the next write.</summary>
        public byte[] Data => _data;

        public int Count => _count;

        public void Clear()
        {
            _count = 0;
            _entries = 0;
        }

        /// <summary>A copy of what was written.</summary>
        public byte[] ToArray()
        {
            var copy = new byte[_count];
            Buffer.BlockCopy(_data, 0, copy, 0, _count);
            return copy;
        }

        /// <summary>Where a map began, and how many entries its surrounding map had.</summary>
        public struct MapMark
        {
            internal int Start;
            internal int OuterEntries;
        }

        /// <summary>Begins a map whose number of entries is not known yet; EndMap writes it.</summary>
        public MapMark BeginMap()
        {
            var mark = new MapMark { Start = _count, OuterEntries = _entries };
            _entries = 0;
            Byte(0x80);
            return mark;
        }

        public void EndMap(MapMark mark)
        {
            if (_entries < FixMapLimit)
            {
                _data[mark.Start] = (byte)(0x80 | _entries);
            }
            else
            {
                Reserve(2);
                int body = _count - mark.Start - 1;
                Buffer.BlockCopy(_data, mark.Start + 1, _data, mark.Start + 3, body);
                _data[mark.Start] = 0xde;
                _data[mark.Start + 1] = (byte)(_entries >> 8);
                _data[mark.Start + 2] = (byte)_entries;
                _count += 2;
            }
            _entries = mark.OuterEntries;
        }

        /// <summary>The key of the next map entry, already in msgpack.</summary>
        public void Key(byte[] packedName)
        {
            _entries++;
            Raw(packedName, 0, packedName.Length);
        }

        /// <summary>The key of the next map entry.</summary>
        public void Key(string name)
        {
            _entries++;
            Text(name);
        }

        public void Array(int count)
        {
            if (count < 16) Byte((byte)(0x90 | count));
            else if (count <= ushort.MaxValue) Tagged(0xdc, (ulong)count, 2);
            else Tagged(0xdd, (ulong)count, 4);
        }

        public void Bool(bool value) => Byte(value ? (byte)0xc3 : (byte)0xc2);

        public void Nil() => Byte(0xc0);

        public void Int(long value)
        {
            if (value >= 0) Unsigned((ulong)value);
            else if (value >= -32) Byte((byte)value);
            else if (value >= sbyte.MinValue) Tagged(0xd0, (ulong)value, 1);
            else if (value >= short.MinValue) Tagged(0xd1, (ulong)value, 2);
            else if (value >= int.MinValue) Tagged(0xd2, (ulong)value, 4);
            else Tagged(0xd3, (ulong)value, 8);
        }

        public void Real(double value) => Tagged(0xcb, (ulong)BitConverter.DoubleToInt64Bits(value), 8);

        public void Text(string value)
        {
            int bytes = Utf8.GetByteCount(value);
            if (bytes < 32) Byte((byte)(0xa0 | bytes));
            else if (bytes <= byte.MaxValue) Tagged(0xd9, (ulong)bytes, 1);
            else if (bytes <= ushort.MaxValue) Tagged(0xda, (ulong)bytes, 2);
            else Tagged(0xdb, (ulong)bytes, 4);
            Reserve(bytes);
            Utf8.GetBytes(value, 0, value.Length, _data, _count);
            _count += bytes;
        }

        /// <summary>Bytes that are msgpack already.</summary>
        public void Raw(byte[] data, int offset, int count)
        {
            Reserve(count);
            Buffer.BlockCopy(data, offset, _data, _count, count);
            _count += count;
        }

        private void Unsigned(ulong value)
        {
            if (value < 128) Byte((byte)value);
            else if (value <= byte.MaxValue) Tagged(0xcc, value, 1);
            else if (value <= ushort.MaxValue) Tagged(0xcd, value, 2);
            else if (value <= uint.MaxValue) Tagged(0xce, value, 4);
            else Tagged(0xcf, value, 8);
        }

        private void Tagged(byte tag, ulong value, int bytes)
        {
            Reserve(bytes + 1);
            _data[_count++] = tag;
            for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) _data[_count++] = (byte)(value >> shift);
        }

        private void Byte(byte value)
        {
            Reserve(1);
            _data[_count++] = value;
        }

        private void Reserve(int bytes)
        {
            if (_count + bytes <= _data.Length) return;
            System.Array.Resize(ref _data, Math.Max(_data.Length * 2, _count + bytes));
        }
    }
}
