using System;

namespace Worldwire
{
    /// <summary>The keys that a player holds.</summary>
    [Flags]
    public enum Keys
    {
        None = 0,
        Attack = 1,
        Back = 2,
        Forward = 4,
        Jump = 8,
        Left = 16,
        Right = 32,
    }

    /// <summary>Keys on the wire: a list of names, in alphabetical order like the bits of Keys.</summary>
    internal static class KeyNames
    {
        private static readonly string[] Names = { "attack", "back", "forward", "jump", "left", "right" };

        internal static void Write(MsgPackWriter writer, Keys keys)
        {
            int count = 0;
            for (int i = 0; i < Names.Length; i++) count += ((int)keys >> i) & 1;
            writer.Array(count);
            for (int i = 0; i < Names.Length; i++)
            {
                if (((int)keys >> i & 1) != 0) writer.Text(Names[i]);
            }
        }

        internal static Keys Read(MsgPackReader reader)
        {
            int count = reader.Array();
            if (count > Protocol.MaxKeys) throw reader.Wrong("at most " + Protocol.MaxKeys + " keys");
            Keys keys = Keys.None;
            for (int i = 0; i < count; i++) keys |= Parse(reader.Text(Protocol.MaxNameCharacters));
            return keys;
        }

        /// <summary>The key of a name; WorldwireException (bad_input) for an unknown one.</summary>
        internal static Keys Parse(string name)
        {
            int index = Array.IndexOf(Names, name);
            if (index >= 0) return (Keys)(1 << index);
            throw new WorldwireException(
                ErrorCode.BadInput, "unknown key", expected: string.Join(", ", Names), got: name);
        }
    }
}
