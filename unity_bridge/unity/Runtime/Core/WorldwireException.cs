using System;
using System.Text;

namespace Worldwire
{
    /// <summary>What can go wrong, as it is named on the wire (specification, section 10).</summary>
    public static class ErrorCode
    {
        public const string BadMessage = "bad_message";
        public const string VersionMismatch = "version_mismatch";
        public const string BadState = "bad_state";
        public const string BadInput = "bad_input";
        public const string BadImage = "bad_image";
        public const string BadConfig = "bad_config";
        public const string Busy = "busy";
        public const string ConnectionLost = "connection_lost";
        public const string SessionLost = "session_lost";
        public const string WrongKey = "wrong_key";
        public const string MissingExtra = "missing_extra";
        public const string Error = "error";
    }

    /// <summary>One problem: what was expected, what came, and what to do about it.</summary>
    public sealed class WorldwireException : Exception
    {
        public readonly string Code;
        public readonly string Problem;
        public readonly string Expected;
        public readonly string Got;
        public readonly string Remedy;

        public WorldwireException(
            string code, string problem, string expected = null, string got = null, string remedy = null)
            : base(Describe(problem, expected, got, remedy))
        {
            Code = code;
            Problem = problem;
            Expected = expected;
            Got = got;
            Remedy = remedy;
        }

        private static string Describe(string problem, string expected, string got, string remedy)
        {
            var text = new StringBuilder(problem);
            if (expected != null) text.Append("; expected: ").Append(expected);
            if (got != null) text.Append("; got: ").Append(got);
            if (remedy != null) text.Append(". ").Append(remedy);
            return text.ToString();
        }
    }
}
