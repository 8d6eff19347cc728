using System;
using System.Text;

namespace Worldwire
{
    /// <summary>
    /// Reads msgpack from a buffer that is not copied. Every read is checked against the end of the data; what is
    /// not as expected throws a WorldwireException of code bad_message that says where.
    /// </summary>
    public sealed class MsgPackReader
    {
        private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);

        private readonly TextCache _texts = new TextCache();
        private byte[] _data = new byte[0];
        private int _position;
        private int _end;

        /// <summary>The message and field under way, for error messages.</summary>
        internal string Message = "a message";
        internal string FieldName = "";

        /// <summary>How far the reader has come; may be set back to read again.</summary>
        public int Position
        {
            get => _position;
            set => _position = value;
        }

        public bool AtEnd => _position == _end;

        public void Reset(byte[] data, int offset, int count)
        {
            _data = data;
            _position = offset;
            _end = offset + count;
            Message = "a message";
            FieldName = "";
        }

        public bool TryNil()
        {
            if (_position >= _end || _data[_position] != 0xc0) return false;
            _position++;
            return true;
        }

        /// <summary>The number of entries of the map that begins here.</summary>
        public int Map()
        {
            int start = _position;
            byte tag = Next();
            long count;
            if ((tag & 0xf0) == 0x80) count = tag & 0x0f;
            else if (tag == 0xde) count = (long)Big(2);
            else if (tag == 0xdf) count = (long)Big(4);
            else throw WrongAt(start, "a map");
            return Bounded(start, count, 2);
        }

        /// <summary>The number of entries of the list that begins here.</summary>
        public int Array()
        {
            int start = _position;
            byte tag = Next();
            long count;
            if ((tag & 0xf0) == 0x90) count = tag & 0x0f;
            else if (tag == 0xdc) count = (long)Big(2);
            else if (tag == 0xdd) count = (long)Big(4);
            else throw WrongAt(start, "a list");
            return Bounded(start, count, 1);
        }

        public bool Bool()
        {
            byte tag = Next();
            if (tag == 0xc3) return true;
            if (tag == 0xc2) return false;
            throw WrongAt(_position - 1, "true or false");
        }

        /// <summary>A whole number between low and high, both included.</summary>
        public long Int(long low, long high)
        {
            int start = _position;
            long value;
            if (!TryInt(out value) || value < low || value > high)
            {
                throw WrongAt(start, "a whole number from " + low + " to " + high);
            }
            return value;
        }

        /// <summary>A finite number; whole numbers are taken too.</summary>
        public double Real()
        {
            int start = _position;
            byte tag = Next();
            double value;
            if (tag == 0xcb)
            {
                value = BitConverter.Int64BitsToDouble((long)Big(8));
            }
            else if (tag == 0xca)
            {
                value = SingleFromBits((uint)Big(4));
            }
            else
            {
                _position = start;
                long whole;
                if (!TryInt(out whole)) throw WrongAt(start, "a finite number");
                value = whole;
            }
            if (double.IsNaN(value) || double.IsInfinity(value)) throw WrongAt(start, "a finite number");
            return value;
        }

        /// <summary>A text of at most this many characters (code points).</summary>
        public string Text(int maxCharacters)
        {
            int start = _position;
            int offset, count;
            TextBytes(out offset, out count);
            string text;
            try
            {
                text = _texts.Get(Utf8, _data, offset, count);
            }
            catch (ArgumentException)
            {
                throw WrongAt(start, "a text in UTF-8");
            }
            if (text.Length > maxCharacters && CodePoints(text) > maxCharacters)
            {
                throw WrongAt(start, "a text of at most " + maxCharacters + " characters");
            }
            return text;
        }

        /// <summary>Where the bytes of the text that begins here are.</summary>
        internal void TextBytes(out int offset, out int count)
        {
            int start = _position;
            byte tag = Next();
            long length;
            if ((tag & 0xe0) == 0xa0) length = tag & 0x1f;
            else if (tag == 0xd9) length = (long)Big(1);
            else if (tag == 0xda) length = (long)Big(2);
            else if (tag == 0xdb) length = (long)Big(4);
            else throw WrongAt(start, "a text");
            offset = _position;
            count = Bounded(start, length, 1);
            _position += count;
        }

        internal Field Key()
        {
            int offset, count;
            TextBytes(out offset, out count);
            return Fields.Find(_data, offset, count);
        }

        /// <summary>A copy of the bytes of the value that begins here, in msgpack.</summary>
        public byte[] RawValue()
        {
            int start = _position;
            Skip();
            var copy = new byte[_position - start];
            Buffer.BlockCopy(_data, start, copy, 0, copy.Length);
            return copy;
        }

        /// <summary>Steps over one value, however deep; it needs no stack.</summary>
        public void Skip()
        {
            long left = 1;
            while (left > 0)
            {
                left += SkipHead() - 1;
                if (left > _end - _position) throw WrongAt(_position, "more bytes");
            }
        }

        /// <summary>
        /// Steps over a value's head and body, not over what it contains; returns how many that is.
        /// </summary>
        private long SkipHead()
        {
            int start = _position;
            byte tag = Next();
            if (tag < 0x80 || tag >= 0xe0) return 0;
            if (tag < 0x90) return 2 * (tag & 0x0f);
            if (tag < 0xa0) return tag & 0x0f;
            if (tag < 0xc0) return Over(start, tag & 0x1f);
            switch (tag)
            {
                case 0xc0: case 0xc2: case 0xc3: return 0;
                case 0xc4: case 0xd9: return Over(start, (long)Big(1));
                case 0xc5: case 0xda: return Over(start, (long)Big(2));
                case 0xc6: case 0xdb: return Over(start, (long)Big(4));
                case 0xc7: return Over(start, (long)Big(1) + 1);
                case 0xc8: return Over(start, (long)Big(2) + 1);
                case 0xc9: return Over(start, (long)Big(4) + 1);
                case 0xca: case 0xce: case 0xd2: return Over(start, 4);
                case 0xcb: case 0xcf: case 0xd3: return Over(start, 8);
                case 0xcc: case 0xd0: return Over(start, 1);
                case 0xcd: case 0xd1: return Over(start, 2);
                case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return Over(start, (1 << (tag - 0xd4)) + 1);
                case 0xdc: return (long)Big(2);
                case 0xdd: return (long)Big(4);
                case 0xde: return 2 * (long)Big(2);
                case 0xdf: return 2 * (long)Big(4);
                default: throw WrongAt(start, "msgpack");
            }
        }

        private long Over(int start, long bytes)
        {
            if (bytes > _end - _position) throw WrongAt(start, "more bytes");
            _position += (int)bytes;
            return 0;
        }

        private bool TryInt(out long value)
        {
            byte tag = Next();
            value = 0;
            if (tag < 0x80) value = tag;
            else if (tag >= 0xe0) value = (sbyte)tag;
            else if (tag >= 0xcc && tag <= 0xce) value = (long)Big(1 << (tag - 0xcc));
            else if (tag == 0xd0) value = (sbyte)Big(1);
            else if (tag == 0xd1) value = (short)Big(2);
            else if (tag == 0xd2) value = (int)Big(4);
            else if (tag == 0xd3) value = (long)Big(8);
            else if (tag == 0xcf) return TryUnsigned(out value);
            else return false;
            return true;
        }

        private bool TryUnsigned(out long value)
        {
            ulong whole = Big(8);
            value = (long)whole;
            return whole <= long.MaxValue;
        }

        private byte Next()
        {
            if (_position >= _end) throw WrongAt(_position, "more bytes");
            return _data[_position++];
        }

        private ulong Big(int bytes)
        {
            if (bytes > _end - _position) throw WrongAt(_position, "more bytes");
            ulong value = 0;
            for (int i = 0; i < bytes; i++) value = (value << 8) | _data[_position++];
            return value;
        }

        private int Bounded(int start, long count, int bytesEach)
        {
            if (count * bytesEach > _end - _position) throw WrongAt(start, "more bytes");
            return (int)count;
        }

        private static double SingleFromBits(uint bits)
        {
            double sign = (bits & 0x80000000) != 0 ? -1 : 1;
            int exponent = (int)((bits >> 23) & 0xff);
            double fraction = bits & 0x7fffff;
            if (exponent == 0xff) return double.NaN;
            if (exponent == 0) return sign * fraction * Math.Pow(2, -149);
            return sign * (1 + fraction / 0x800000) * Math.Pow(2, exponent - 127);
        }

        internal static int CodePoints(string text)
        {
            int count = 0;
            foreach (char unit in text)
            {
                if (!char.IsLowSurrogate(unit)) count++;
            }
            return count;
        }

        internal WorldwireException Wrong(string expected) => WrongAt(_position, expected);

        private WorldwireException WrongAt(int position, string expected)
        {
            string got = position < _end ? "the byte 0x" + _data[position].ToString("x2") : "the end of the data";
            string where = FieldName.Length > 0 ? Message + "." + FieldName : Message;
            return new WorldwireException(
                ErrorCode.BadMessage, where + " is wrong", expected, got + " at position " + position);
        }
    }
}
