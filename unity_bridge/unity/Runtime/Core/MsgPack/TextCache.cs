using System.Text;

namespace Worldwire
{
    /// <summary>
    /// Short texts that come again and again (formats, names of stages) become one string each. A fixed number of
    /// places, a newcomer takes the place of an older text: it never grows.
    /// </summary>
    internal sealed class TextCache
    {
        private const int Places = 64;
        private const int LongestCached = 48;
        private const uint HashSeed = 2166136261;
        private const uint HashFactor = 16777619;

        private readonly byte[][] _keys = new byte[Places][];
        private readonly string[] _texts = new string[Places];

        /// <summary>The text of these bytes; DecoderFallbackException unless they are UTF-8.</summary>
        internal string Get(Encoding encoding, byte[] data, int offset, int count)
        {
            if (count > LongestCached) return encoding.GetString(data, offset, count);
            uint place = Hash(data, offset, count) % Places;
            if (!Same(_keys[place], data, offset, count))
            {
                _texts[place] = encoding.GetString(data, offset, count);
                var key = new byte[count];
                System.Buffer.BlockCopy(data, offset, key, 0, count);
                _keys[place] = key;
            }
            return _texts[place];
        }

        internal static uint Hash(byte[] data, int offset, int count)
        {
            uint hash = HashSeed;
            for (int i = 0; i < count; i++) hash = unchecked((hash ^ data[offset + i]) * HashFactor);
            return hash;
        }

        internal static bool Same(byte[] key, byte[] data, int offset, int count)
        {
            if (key == null || key.Length != count) return false;
            for (int i = 0; i < count; i++)
            {
                if (key[i] != data[offset + i]) return false;
            }
            return true;
        }
    }
}
