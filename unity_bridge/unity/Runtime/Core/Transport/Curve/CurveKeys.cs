using System;
using System.IO;

namespace Worldwire
{
    /// <summary>
    /// Keys as people give them: 40 characters of Z85, or a file that `worldwire serve --new-key` wrote.
    /// </summary>
    public static class CurveKeys
    {
        public const int Characters = 40;

        private const string PublicField = "public-key";
        private const string SecretField = "secret-key";

        /// <summary>The public key; "" for nothing. WorldwireException (wrong_key) for what is none.</summary>
        public static string Public(string keyOrFile) => Read(keyOrFile, PublicField);

        /// <summary>The secret key of a file, or the key itself.</summary>
        public static string Secret(string keyOrFile) => Read(keyOrFile, SecretField);

        private static string Read(string keyOrFile, string field)
        {
            string text = (keyOrFile ?? "").Trim();
            if (text.Length == 0 || text.Length == Characters && !File.Exists(text)) return text;
            if (!File.Exists(text))
            {
                throw TransportProblems.KeyMalformed(text.Length + " characters, and no such file");
            }
            foreach (string line in File.ReadAllLines(text))
            {
                if (line.Trim().StartsWith(field)) return Quoted(line);
            }
            throw TransportProblems.KeyMalformed("a file without " + field);
        }

        private static string Quoted(string line)
        {
            int first = line.IndexOf('"');
            int last = line.LastIndexOf('"');
            if (last - first - 1 != Characters) throw TransportProblems.KeyMalformed(line.Length + " characters");
            return line.Substring(first + 1, Characters);
        }
    }
}
