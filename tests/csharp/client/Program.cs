using System;
using System.Globalization;

namespace Worldwire.Tests
{
    internal static class Program
    {
        private static int Main(string[] args)
        {
            switch (args.Length > 0 ? args[0] : "")
            {
                case "vectors": return VectorsProgram.Run(args[1]);
                case "play": return PlayProgram.Play(args[1], int.Parse(args[2]));
                case "bench":
                    return BenchProgram.Run(
                        args[1], double.Parse(args[2], CultureInfo.InvariantCulture), args[3],
                        args.Length > 4 ? int.Parse(args[4]) : BenchProgram.DefaultWindow);
                case "hostile": return HostileProgram.Run(int.Parse(args[1]));
                case "watch": return WatchProgram.Run(args);
                case "fuzz": return FuzzProgram.Run(args[1]);
                default:
                    Console.Error.WriteLine(
                        "vectors FOLDER | play ADDR FRAMES | bench ADDR SECONDS FORMAT [WINDOW] | fuzz FILE | watch ADDR");
                    return 2;
            }
        }
    }
}
