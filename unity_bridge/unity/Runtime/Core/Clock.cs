using System.Diagnostics;

namespace Worldwire
{
    /// <summary>The monotonic clock of this process, in nanoseconds.</summary>
    public static class Clock
    {
        public const long NanosecondsPerMillisecond = 1000000;
        public const long NanosecondsPerSecond = 1000000000;

        public static long NowNs
        {
            get
            {
                long ticks = Stopwatch.GetTimestamp();
                long seconds = ticks / Stopwatch.Frequency;
                long rest = ticks % Stopwatch.Frequency;
                return seconds * NanosecondsPerSecond + rest * NanosecondsPerSecond / Stopwatch.Frequency;
            }
        }

        public static double Seconds(long nanoseconds) => nanoseconds / (double)NanosecondsPerSecond;

        public static double Milliseconds(long nanoseconds) => nanoseconds / (double)NanosecondsPerMillisecond;

        public static long FromSeconds(double seconds) => (long)(seconds * NanosecondsPerSecond);
    }
}
