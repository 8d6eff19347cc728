using System;
using System.Diagnostics;
using System.Globalization;
using System.IO;

namespace Worldwire.Tests
{
    /// <summary>fuzz FILE: records of a length (4 bytes, little-endian) and a part 0; each is decoded.</summary>
    internal static class FuzzProgram
    {
        internal static int Run(string path)
        {
            byte[] file = File.ReadAllBytes(path);
            var codec = new MessageCodec();
            var frame = new FrameMessage();
            long cases = 0, refused = 0, atStart = GC.GetTotalMemory(true);
            var watch = Stopwatch.StartNew();
            for (int at = 0; at < file.Length; cases++)
            {
                int count = BitConverter.ToInt32(file, at);
                if (!Accepts(codec, frame, file, at + 4, count)) refused++;
                at += 4 + count;
            }
            double seconds = watch.Elapsed.TotalSeconds;
            Console.WriteLine(string.Format(
                CultureInfo.InvariantCulture,
                "{{\"cases\": {0}, \"refused\": {1}, \"accepted\": {2}, \"seconds\": {3:0.##}, \"grown_bytes\": {4}}}",
                cases, refused, cases - refused, seconds, GC.GetTotalMemory(true) - atStart));
            return 0;
        }

        /// <summary>Any other exception than the typed one ends the program.</summary>
        private static bool Accepts(MessageCodec codec, FrameMessage frame, byte[] file, int offset, int count)
        {
            try
            {
                codec.Decode(file, offset, count, frame);
                return true;
            }
            catch (WorldwireException)
            {
                return false;
            }
        }
    }
}
