using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Worldwire.Tests
{
    /// <summary>JSON as it stands in the golden vectors: a number with a point or an exponent is a real.</summary>
    internal sealed class Json
    {
        private readonly string _text;
        private int _at;

        private Json(string text)
        {
            _text = text;
        }

        /// <summary>
        /// Maps as lists of pairs in their order, lists, string, long, ulong, double, bool or null.
        /// </summary>
        internal static object Parse(string text) => new Json(text).Value();

        internal static object Get(object map, string name)
        {
            foreach (var pair in (List<KeyValuePair<string, object>>)map)
            {
                if (pair.Key == name) return pair.Value;
            }
            return null;
        }

        /// <summary>The value as msgpack, in the shortest forms.</summary>
        internal static void Pack(object value, MsgPackWriter writer)
        {
            var map = value as List<KeyValuePair<string, object>>;
            var list = value as List<object>;
            if (map != null) PackMap(map, writer);
            else if (list != null)
            {
                writer.Array(list.Count);
                foreach (object item in list) Pack(item, writer);
            }
            else if (value is string) writer.Text((string)value);
            else if (value is bool) writer.Bool((bool)value);
            else if (value is double) writer.Real((double)value);
            else if (value is long) writer.Int((long)value);
            else if (value is ulong) PackLargest((ulong)value, writer);
            else writer.Nil();
        }

        private static void PackMap(List<KeyValuePair<string, object>> map, MsgPackWriter writer)
        {
            MsgPackWriter.MapMark mark = writer.BeginMap();
            foreach (var pair in map)
            {
                writer.Key(pair.Key);
                Pack(pair.Value, writer);
            }
            writer.EndMap(mark);
        }

        private static void PackLargest(ulong value, MsgPackWriter writer)
        {
            var bytes = new byte[9];
            bytes[0] = 0xcf;
            for (int i = 0; i < 8; i++) bytes[8 - i] = (byte)(value >> (8 * i));
            writer.Raw(bytes, 0, bytes.Length);
        }

        private object Value()
        {
            SkipSpace();
            switch (_text[_at])
            {
                case '{': return Map();
                case '[': return List();
                case '"': return Text();
                case 't': _at += 4; return true;
                case 'f': _at += 5; return false;
                case 'n': _at += 4; return null;
                default: return Number();
            }
        }

        private object Map()
        {
            var map = new List<KeyValuePair<string, object>>();
            while (Next() != '}')
            {
                SkipSpace();
                if (_text[_at] == '}') continue;
                string key = Text();
                Next();
                map.Add(new KeyValuePair<string, object>(key, Value()));
            }
            return map;
        }

        private object List()
        {
            var list = new List<object>();
            while (Next() != ']')
            {
                SkipSpace();
                if (_text[_at] == ']') continue;
                list.Add(Value());
            }
            return list;
        }

        /// <summary>Steps over an opening, separating or closing character.</summary>
        private char Next()
        {
            SkipSpace();
            return _text[_at++];
        }

        private string Text()
        {
            var text = new StringBuilder();
            for (_at++; _text[_at] != '"'; _at++)
            {
                if (_text[_at] == '\\') text.Append(Escaped());
                else text.Append(_text[_at]);
            }
            _at++;
            return text.ToString();
        }

        private char Escaped()
        {
            char kind = _text[++_at];
            if (kind == 'n') return '\n';
            if (kind == 't') return '\t';
            if (kind == 'r') return '\r';
            if (kind == 'b') return '\b';
            if (kind == 'f') return '\f';
            if (kind != 'u') return kind;
            _at += 4;
            return (char)int.Parse(_text.Substring(_at - 3, 4), NumberStyles.HexNumber);
        }

        private object Number()
        {
            int start = _at;
            while (_at < _text.Length && "+-.0123456789eE".IndexOf(_text[_at]) >= 0) _at++;
            string text = _text.Substring(start, _at - start);
            long whole;
            ulong large;
            if (long.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out whole)) return whole;
            if (ulong.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out large)) return large;
            double real = double.Parse(text, CultureInfo.InvariantCulture);
            return real == 0 && text[0] == '-' ? -0.0 : real;
        }

        private void SkipSpace()
        {
            while (_at < _text.Length && char.IsWhiteSpace(_text[_at])) _at++;
        }
    }
}
