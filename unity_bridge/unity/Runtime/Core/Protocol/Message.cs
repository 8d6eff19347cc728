using System.Collections.Generic;

namespace Worldwire
{
    /// <summary>
    /// A message: a msgpack map with `type` first. The classes are the tables of the specification, field by
    /// field; objects can be filled again and again, so that frequent ones cost no allocation. A number 0, a null
    /// and HasPose = false stand for absent optional fields.
    /// </summary>
    public abstract class Message
    {
        /// <summary>The name on the wire.</summary>
        public abstract string Type { get; }

        /// <summary>The fields that must be there.</summary>
        internal virtual Field[] Required => None;

        /// <summary>Back to the defaults of absent fields.</summary>
        internal abstract void Clear();

        /// <summary>Reads the value of one field; false if this message has no such field.</summary>
        internal abstract bool Read(Field field, MsgPackReader reader);

        /// <summary>Writes all fields in the order of the specification.</summary>
        internal abstract void Write(MsgPackWriter writer);

        private static readonly Field[] None = new Field[0];

        /// <summary>Part 0 of this message in `writer`, which is cleared before.</summary>
        public void Encode(MsgPackWriter writer)
        {
            writer.Clear();
            MsgPackWriter.MapMark map = writer.BeginMap();
            writer.Put(Field.Type, Type);
            Write(writer);
            writer.EndMap(map);
        }
    }

    /// <summary>An answer to a request, or the last message that has its number.</summary>
    public interface IRequested
    {
        long Request { get; }
    }

    /// <summary>Which fields a map has shown so far.</summary>
    internal struct FieldSet
    {
        private ulong _low, _high;

        internal void Add(Field field)
        {
            int bit = (int)field;
            if (bit < 64) _low |= 1UL << bit;
            else _high |= 1UL << (bit - 64);
        }

        internal bool Has(Field field)
        {
            int bit = (int)field;
            return bit < 64 ? (_low >> bit & 1) != 0 : (_high >> (bit - 64) & 1) != 0;
        }
    }

    /// <summary>How the kinds of the specification's tables are written.</summary>
    internal static class Puts
    {
        internal static void Put(this MsgPackWriter writer, Field field) => writer.Key(Fields.Packed[(int)field]);

        internal static void Put(this MsgPackWriter writer, Field field, long value)
        {
            writer.Put(field);
            writer.Int(value);
        }

        internal static void Put(this MsgPackWriter writer, Field field, double value)
        {
            writer.Put(field);
            writer.Real(value);
        }

        internal static void Put(this MsgPackWriter writer, Field field, bool value)
        {
            writer.Put(field);
            writer.Bool(value);
        }

        internal static void Put(this MsgPackWriter writer, Field field, string value)
        {
            writer.Put(field);
            writer.Text(value);
        }

        /// <summary>An optional text.</summary>
        internal static void PutSome(this MsgPackWriter writer, Field field, string value)
        {
            if (value != null) writer.Put(field, value);
        }

        /// <summary>An optional number of which 0 means that it is absent.</summary>
        internal static void PutSome(this MsgPackWriter writer, Field field, long value)
        {
            if (value != 0) writer.Put(field, value);
        }

        internal static void Put(this MsgPackWriter writer, Field field, List<string> values)
        {
            writer.Put(field);
            writer.Array(values.Count);
            for (int i = 0; i < values.Count; i++) writer.Text(values[i]);
        }

        internal static void Put(this MsgPackWriter writer, Field field, Vec3 value)
        {
            writer.Put(field);
            writer.Array(3);
            writer.Real(value.X);
            writer.Real(value.Y);
            writer.Real(value.Z);
        }

        internal static void Put(this MsgPackWriter writer, Field field, Quat value)
        {
            writer.Put(field);
            writer.Array(4);
            writer.Real(value.X);
            writer.Real(value.Y);
            writer.Real(value.Z);
            writer.Real(value.W);
        }

        internal static void PutVersion(this MsgPackWriter writer, long major, long minor)
        {
            writer.Put(Field.Version);
            writer.Array(2);
            writer.Int(major);
            writer.Int(minor);
        }
    }

    /// <summary>How the kinds of the specification's tables are read.</summary>
    internal static class Gets
    {
        internal static long Id(this MsgPackReader reader) => reader.Int(1, Protocol.MaxId);

        internal static long Counted(this MsgPackReader reader) => reader.Int(0, Protocol.MaxId);

        internal static long Whole(this MsgPackReader reader) => reader.Int(0, long.MaxValue);

        /// <summary>A whole number that an int of C# holds.</summary>
        internal static int Small(this MsgPackReader reader, int low = 0, int high = int.MaxValue) =>
            (int)reader.Int(low, high);

        internal static string Name(this MsgPackReader reader) => reader.Text(Protocol.MaxNameCharacters);

        internal static string AnyText(this MsgPackReader reader) => reader.Text(int.MaxValue);

        internal static Vec3 Vec3(this MsgPackReader reader)
        {
            reader.Shape(3);
            return new Vec3(reader.Real(), reader.Real(), reader.Real());
        }

        internal static Quat Quat(this MsgPackReader reader)
        {
            reader.Shape(4);
            return new Quat(reader.Real(), reader.Real(), reader.Real(), reader.Real());
        }

        internal static double Seconds(this MsgPackReader reader) => reader.Real(0, Protocol.MaxSeconds);

        internal static double Real(this MsgPackReader reader, double low, double high)
        {
            double value = reader.Real();
            if (value >= low && value <= high) return value;
            throw reader.Wrong("a number from " + low + " to " + high);
        }

        internal static void Version(this MsgPackReader reader, out long major, out long minor)
        {
            reader.Shape(2);
            major = reader.Counted();
            minor = reader.Counted();
        }

        internal static void Texts(this MsgPackReader reader, List<string> into, int low = 0, int high = int.MaxValue)
        {
            into.Clear();
            int count = reader.Array();
            if (count < low || count > high) throw reader.Wrong("a list of " + low + " to " + high + " entries");
            for (int i = 0; i < count; i++) into.Add(reader.AnyText());
        }

        internal static void Shape(this MsgPackReader reader, int count)
        {
            if (reader.Array() != count) throw reader.Wrong("a list of " + count + " entries");
        }
    }
}
